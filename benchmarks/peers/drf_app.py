"""Django REST framework in one file: a model, a ModelSerializer, a ModelViewSet, a router.

Only what the contract needs differs from the documentation's quickstart: 200 instead of 201 and 204, and a bare list
instead of an envelope.
"""

import os
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY=os.urandom(16).hex(),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["rest_framework"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["DATABASE_URL"].removeprefix("sqlite:///"),
            "CONN_MAX_AGE": None,  # connections persist, as for the others
            "OPTIONS": {"init_command": "PRAGMA synchronous=FULL"},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    # Django's advice for an API without accounts: neither its sessions nor its users are loaded.
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    },
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import models  # noqa: E402
from django.http import Http404  # noqa: E402
from rest_framework import pagination, routers, serializers, viewsets  # noqa: E402
from rest_framework.exceptions import NotFound  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402


class Hero(models.Model):
    name = models.TextField(db_index=True)
    age = models.IntegerField(null=True, db_index=True)
    secret_name = models.TextField()

    class Meta:
        app_label = "rest_framework"
        db_table = "hero"


class HeroSerializer(serializers.ModelSerializer):
    class Meta:
        model = Hero
        fields = ("name", "age", "id", "secret_name")
        extra_kwargs = {"secret_name": {"write_only": True}}


class Page(pagination.LimitOffsetPagination):
    default_limit = 100
    max_limit = 100

    def get_count(self, queryset: Any) -> int:
        """Return a number without counting the table: a bare list shows no total."""
        return 2**63 - 1

    def get_paginated_response(self, data: Any) -> Response:
        return Response(data)


class HeroViewSet(viewsets.ModelViewSet):
    queryset = Hero.objects.order_by("id")
    serializer_class = HeroSerializer
    pagination_class = Page

    def get_object(self) -> Any:
        try:
            return super().get_object()
        except Http404 as error:
            raise NotFound("Hero not found") from error

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response = super().create(request, *args, **kwargs)
        response.status_code = 200
        return response

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        super().destroy(request, *args, **kwargs)
        return Response({"ok": True})


class OptionalSlash(routers.SimpleRouter):
    """The contract has /heroes/ with the slash and /heroes/1 without."""

    def __init__(self) -> None:
        super().__init__()
        self.trailing_slash = "/?"


router = OptionalSlash()
router.register("heroes", HeroViewSet)
urlpatterns = router.urls
app = get_wsgi_application()
