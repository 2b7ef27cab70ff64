venv "$PWD/requirements.txt" celery || return
program celery 5.7.0 extensions "$python" extensions.py
