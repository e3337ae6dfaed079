"""Request and response schemas: the tutorial's models."""

from heroes.web.fields import BaseSchema, Id, Integer, PartialSchema, String
from heroes.web.parameters import PageQuery, Sort

NAME_LENGTH = 500
# Examples for Swagger UI's "Try it out".
NAME, AGE, SECRET_NAME = {"examples": ["Deadpond"]}, {"examples": [48]}, {"examples": ["Dive Wilson"]}


class HeroBase(BaseSchema):
    """The fields that every form of a hero has, in the order in which errors are reported."""

    name = String(required=True, max_length=NAME_LENGTH, metadata=NAME)
    age = Integer(allow_none=True, load_default=None, metadata=AGE)


class HeroPublic(HeroBase):
    """A hero in a response. Only these fields are public."""

    name = String(required=True, metadata=NAME)
    id = Id(required=True, metadata={"examples": [1]})


class HeroCreate(HeroBase):
    """A new hero."""

    secret_name = String(required=True, max_length=NAME_LENGTH, metadata=SECRET_NAME)


class HeroUpdate(PartialSchema, HeroCreate):
    """Changes to a hero."""


class HeroPath(BaseSchema):
    """The path of one hero."""

    hero_id = Id(required=True)


class HeroQuery(PageQuery):
    """A page of the list, and which heroes are on it."""

    name = String(max_length=NAME_LENGTH, metadata={"description": "Exactly this name"})
    age = Integer(metadata={"description": "Exactly this age"})
    min_age = Integer(metadata={"description": "This age or more"})
    max_age = Integer(metadata={"description": "This age or less"})
    sort = Sort("name", "age")
