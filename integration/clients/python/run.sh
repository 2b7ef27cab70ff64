venv "$PWD/requirements.txt" python || return
program pika 1.4.4 tutorials "$python" tutorials.py
program pika 1.4.4 extensions "$python" extensions.py
