npm_modules "$PWD" node || return
for file in scenarios tutorials extensions; do program amqplib 2.3.1 $file node $file.js; done
program amqplib 0.8.0 scenarios env AMQPLIB=amqplib-0.8 node scenarios.js
program amqp-connection-manager 5.0.0 scenarios node manager.js
program rascal 21.0.1 scenarios node rascal.js
program '@nestjs/microservices' 11.1.6 scenarios node nest.js
