debian php-cli php-amqplib php-amqp || return
program php-amqplib "$(debian_version php-amqplib)" scenarios php amqplib.php
program ext-amqp "$(debian_version php-amqp)" scenarios php ext.php
