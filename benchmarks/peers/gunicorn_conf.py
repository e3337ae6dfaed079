"""gunicorn for the WSGI peers: the settings of heroes' gunicorn.conf.py that decide what a request costs.

The rest of that file, its log format above all, would only make the peers start slower and weigh more.
"""

import os

bind = os.environ["BIND"]
worker_class = "gthread"
workers = int(os.environ["WEB_CONCURRENCY"])
threads = int(os.environ["GUNICORN_THREADS"])
keepalive = 5
http_parser = "python"
control_socket_disable = True
