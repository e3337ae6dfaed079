"""What goes in and what comes out: the tutorial's models as marshmallow schemas. They know no Flask and no SQLAlchemy."""

from marshmallow import EXCLUDE, Schema

from heroes.fields import Int, Str, fault

NAME_LENGTH = 500
MAX_LIMIT = 100


class Model(Schema):
    """A schema that ignores unknown keys and takes nothing but an object, as the tutorial's models do."""

    class Meta:
        unknown = EXCLUDE

    error_messages = {"type": fault("model_attributes_type")}


class HeroBase(Model):
    """What every form of a hero has, in the order in which faults are reported."""

    name = Str(required=True, max_length=NAME_LENGTH)
    age = Int(allow_none=True, load_default=None)


class HeroPublic(HeroBase):
    """A hero as anyone may see it: the only definition of what is public."""

    name = Str(required=True)
    id = Int(required=True)


class HeroCreate(HeroBase):
    """A new hero."""

    secret_name = Str(required=True, max_length=NAME_LENGTH)


class HeroUpdate(HeroBase):
    """Changes to a hero: an absent key keeps its value."""

    name = Str(max_length=NAME_LENGTH)
    age = Int(allow_none=True)
    secret_name = Str(max_length=NAME_LENGTH)


class HeroPath(Model):
    """The path of one hero. An id out of range is no fault: there is just no such hero."""

    hero_id = Int(required=True)


class HeroQuery(Model):
    """A page of the list."""

    offset = Int(ge=0, load_default=0)
    limit = Int(ge=0, le=MAX_LIMIT, load_default=MAX_LIMIT)
