"""What goes in and what comes out: the tutorial's models as schemas, which know no Flask and no SQLAlchemy."""

from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, missing

from heroes.fields import Int, OneOf, Scalar, Str, fault

NAME_LENGTH = 500
KEY_LENGTH = 255
MAX_LIMIT = 100
# What the document's pages fill in where one tries it out.
NAME, AGE, SECRET_NAME = {"examples": ["Deadpond"]}, {"examples": [48]}, {"examples": ["Dive Wilson"]}
SORTS = ("id", "-id", "name", "-name", "age", "-age")


class Model(Schema):
    """A schema of Scalars that ignores unknown keys and takes nothing but an object, as the tutorial's models do.

    `load` and `dump` do for Scalars what marshmallow's own do for any field, hook and nesting, in fewer steps.
    """

    class Meta:
        unknown = EXCLUDE

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not all(isinstance(field, Scalar) for field in self.fields.values()) or any(self._hooks.values()):
            raise TypeError(f"{type(self).__name__} has more than Scalars: derive it from marshmallow's Schema")
        # Written out, as a namedtuple's methods are: it takes a quarter of the time of a dict and a zip for each row.
        pairs = ", ".join(f"{name!r}: {name}" for name in self.dump_fields)
        self.named = eval(f"lambda rows: [{{{pairs}}} for {', '.join(self.dump_fields) or '()'} in rows]")

    def load(self, data: Any, **kwargs: Any) -> dict[str, Any]:
        """What the fields make of an object's values. Raises ValidationError with the faults of all of them."""
        if not isinstance(data, dict):
            raise ValidationError([fault("model_attributes_type")])
        loaded, faults = {}, {}
        for name, field in self.load_fields.items():
            value = data.get(field.data_key or name, missing)
            if value is missing and not field.required:
                value = field.load_default
            else:
                try:
                    value = field.deserialize(value, name, data)
                except ValidationError as error:
                    faults[field.data_key or name] = error.messages
                    continue
            if value is not missing:
                loaded[name] = value
        if faults:
            raise ValidationError(faults)
        return loaded

    def dump(self, obj: Any, *, many: bool | None = None) -> Any:
        """The public form of a row, or of a list of rows where `many`.

        A row has its values in the order of the fields, and a Scalar's value is dumped as it is: all that is left to do
        is to name them. What follows in a single row is not public.
        """
        if self.many if many is None else many:
            return self.named(obj)
        return dict(zip(self.dump_fields, obj, strict=False))


class HeroBase(Model):
    """What every form of a hero has, in the order in which faults are reported."""

    name = Str(required=True, max_length=NAME_LENGTH, metadata=NAME)
    age = Int(allow_none=True, load_default=None, metadata=AGE)


class HeroPublic(HeroBase):
    """A hero as anyone may see it: the only definition of what is public."""

    name = Str(required=True, metadata=NAME)
    id = Int(required=True, metadata={"examples": [1]})


class HeroCreate(HeroBase):
    """A new hero."""

    secret_name = Str(required=True, max_length=NAME_LENGTH, metadata=SECRET_NAME)


class HeroUpdate(HeroBase):
    """Changes to a hero: an absent key keeps its value."""

    name = Str(max_length=NAME_LENGTH, metadata=NAME)
    age = Int(allow_none=True, metadata=AGE)
    secret_name = Str(max_length=NAME_LENGTH, metadata=SECRET_NAME)


class HeroPath(Model):
    """The path of one hero. An id out of range is no fault: there is just no such hero."""

    not_found = "Hero not found"

    hero_id = Int(required=True)


class HeroFilter(Model):
    """Which heroes are meant; together they must all hold."""

    name = Str(max_length=NAME_LENGTH, metadata={"description": "Exactly this name"})
    age = Int(metadata={"description": "Exactly this age"})
    min_age = Int(metadata={"description": "This age or more"})
    max_age = Int(metadata={"description": "This age or less"})


class HeroQuery(HeroFilter):
    """A page of the list."""

    offset = Int(ge=0, load_default=0, metadata={"description": "How many heroes to pass over"})
    limit = Int(ge=0, le=MAX_LIMIT, load_default=MAX_LIMIT, metadata={"description": "How many heroes to answer"})
    after = Int(metadata={"description": "Only ids above this one; goes with sort=id"})
    sort = OneOf(SORTS, load_default="id", metadata={"description": "Ties by id, unknown ages last"})

    class Meta(Model.Meta):
        # The tutorial's own first: faults are reported in this order.
        fields = ("offset", "limit", "after", "name", "age", "min_age", "max_age", "sort")

    def load(self, data: Any, **kwargs: Any) -> dict[str, Any]:
        """As Model; `after` beside another order than id's is a fault."""
        page = super().load(data, **kwargs)
        if "after" in page and page["sort"] != "id":
            raise ValidationError({"after": fault("value_error", "after goes with sort=id only")})
        return page


class CreateHeaders(Model):
    """What a client may say about a POST."""

    idempotency_key = Str(
        data_key="Idempotency-Key",
        max_length=KEY_LENGTH,
        metadata={"description": "Within 24 hours the same key and body answer the first answer again"},
    )


class ListHeaders(Model):
    """What a client may say about a GET of the list."""

    prefer = Str(data_key="Prefer", metadata={"description": "count=exact asks for X-Total-Count"})


class ReadHeaders(Model):
    """What a client may say about a GET of one hero."""

    if_none_match = Str(data_key="If-None-Match", metadata={"description": "An ETag: 304 while the hero still has it"})


class ChangeHeaders(Model):
    """What a client may say about a PATCH or a DELETE."""

    if_match = Str(data_key="If-Match", metadata={"description": "An ETag: 412 when the hero no longer has it"})
