npm_modules "$PWD" node || return
program amqplib 2.3.1 tutorials node tutorials.js
program amqplib 2.3.1 extensions node extensions.js
