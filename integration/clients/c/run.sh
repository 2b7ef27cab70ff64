debian amqp-tools || return
program 'librabbitmq, amqp-tools' "$(debian_version amqp-tools)" tools ./tools.sh
