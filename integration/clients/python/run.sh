venv "$PWD/requirements.txt" python || return
for file in scenarios tutorials extensions; do program pika 1.4.4 $file "$python" $file.py; done
venv "$PWD/requirements-more.txt" python-more || return
program aio-pika 10.2.1 scenarios "$python" aiopika.py
program kombu 5.7.0 scenarios "$python" kombu_.py
program dramatiq 2.2.1 application "$python" dramatiq_.py
# Old ones, with what Python has taken away since. Their TLS does not know today's way to name a host.
venv "$PWD/requirements-old.txt" python-old || return
program pika 0.13.1 scenarios env PYTHONPATH="$PWD/old" "$python" pika_old.py
program kombu 4.6.11 scenarios env PYTHONPATH="$PWD/old" SKIP_TLS=1 "$python" kombu_.py
