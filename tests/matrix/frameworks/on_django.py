"""A Django app, by `get_asgi_application`: views in threads, with a Session of SQLAlchemy's. It has no lifespan."""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from starlette.types import ASGIApp

from hookware import Hookware, require_task
from tests.matrix import shop

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="matrix",
)


def order(request: HttpRequest) -> HttpResponse:
    shop.take_order(request.GET["key"], request.GET["url"], request.GET["end"])
    return HttpResponse()


def worker(request: HttpRequest) -> HttpResponse:
    require_task(request)
    shop.make_effect(request.POST["key"])
    return HttpResponse()


def slow(request: HttpRequest) -> HttpResponse:
    shop.make_effect_slowly(request.POST["key"])
    return HttpResponse()


urlpatterns = [path(view.__name__, csrf_exempt(view)) for view in (order, worker, slow)]


def make() -> ASGIApp:
    return Hookware(get_asgi_application(), engine=shop.engine)
