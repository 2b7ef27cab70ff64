#!/bin/bash
# librabbitmq's command line tools, as shell scripts use them.
set -u
q=clients-c-$$
url=${AMQP_URL:-amqp://guest:guest@localhost:5672/}
url=${url%/} # a URL that ends in a slash names the vhost "" for these tools
passed=0 failed=0

check() { # NAME FUNCTION
	(set -e; "$2") >"$scratch/out" 2>&1 # not in a condition, where set -e does nothing
	if [ $? -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok   $1"
	else
		failed=$((failed + 1))
		echo "FAIL $1"
		cat "$scratch/out"
	fi
}
equal() { [ "$1" = "$2" ] || { echo "got '$1', want '$2'"; return 1; }; }

publish_and_get() {
	equal "$(amqp-declare-queue -u "$url" -q "$q" -d)" "$q"
	amqp-publish -u "$url" -r "$q" -p -b 'hello there'
	equal "$(amqp-get -u "$url" -q "$q")" 'hello there'
	status=0
	amqp-get -u "$url" -q "$q" >/dev/null || status=$?
	equal $status 2
}
consume() {
	amqp-declare-queue -u "$url" -q "$q" -d >/dev/null
	for i in 1 2 3; do printf 'message %s\n' $i | amqp-publish -u "$url" -r "$q" -p; done
	equal "$(amqp-consume -u "$url" -q "$q" -c 3 -p 1 cat)" 'message 1
message 2
message 3'
}
exchange() {
	amqp-consume -u "$url" -e amq.topic -r 'a.#' -c 1 cat >"$scratch/got" & # a queue of its own
	consumer=$!
	for _ in $(seq 300); do # until it is bound
		amqp-publish -u "$url" -e amq.topic -r a.b.c -b routed
		kill -0 $consumer 2>/dev/null || break
		sleep 0.1
	done
	wait $consumer
	equal "$(cat "$scratch/got")" routed
}
delete() {
	amqp-publish -u "$url" -r "$q" -p -b left
	equal "$(amqp-delete-queue -u "$url" -q "$q")" 1
	status=0
	amqp-get -u "$url" -q "$q" >/dev/null 2>"$scratch/err" || status=$?
	[ $status -ne 0 ]
	grep -q 'NOT_FOUND - no queue' "$scratch/err"
}
refused() { # OPTIONS...: a queue that cannot even be declared
	if amqp-declare-queue "$@" -q "$q-tls"; then return 1; fi
}
tls() {
	with=(-u "${AMQPS_URL%/}" --cacert "$BROKER_TLS/ca.pem")
	amqp-declare-queue "${with[@]}" --cert "$BROKER_TLS/client.pem" --key "$BROKER_TLS/client-key.pem" -q "$q-tls" >/dev/null
	equal "$(amqp-delete-queue "${with[@]}" --cert "$BROKER_TLS/client.pem" --key "$BROKER_TLS/client-key.pem" -q "$q-tls")" 0
	refused "${with[@]}" --cert "$BROKER_TLS/other.pem" --key "$BROKER_TLS/other-key.pem"
	refused "${with[@]}"
}

scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
check publishAndGet publish_and_get
check consume consume
check exchange exchange
check delete delete
if [ -n "${AMQPS_URL:-}" ]; then check tls tls; else echo 'skip tls: AMQPS_URL is not set'; fi
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
