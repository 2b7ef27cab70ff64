# Debian has amqp_client inside its rabbitmq-server, of which nothing else is used.
debian erlang-base erlang-asn1 erlang-crypto erlang-inets erlang-public-key erlang-ssl erlang-syntax-tools erlang-tools erlang-xmerl || return
client=$cache/erlang
if ! [ -d "$client/plugins" ]; then
	rm -rf "$client"
	mkdir -p "$client/package" || return
	(cd "$client/package" && { apt-get download -q rabbitmq-server || { apt-get update -q && apt-get download -q rabbitmq-server; }; } && dpkg -x rabbitmq-server_*.deb .) || return
	mv "$client"/package/usr/lib/rabbitmq/lib/*/plugins "$client/plugins" || return
	rm -rf "$client/package"
fi
version=$(basename "$client"/plugins/amqp_client-*)
program amqp_client "${version#amqp_client-}" scenarios env ERL_LIBS="$client/plugins" escript ./scenarios.escript
