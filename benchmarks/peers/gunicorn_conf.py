"""The WSGI peers' gunicorn: the settings of heroes' gunicorn.conf.py that decide what a request costs.

The rest of that file, its log format above all, is left out: the peers would start slower and weigh more for it.
"""

import os

bind = os.environ["BIND"]
worker_class = "gthread"
workers = int(os.environ["WEB_CONCURRENCY"])
threads = int(os.environ["GUNICORN_THREADS"])
keepalive = 5
http_parser = "python"
control_socket_disable = True
