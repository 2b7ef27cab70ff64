# Clients that cannot be installed here: what they send, frame by frame, with the answers that they need.
program RabbitMQ.Client '6 and 7, recorded' replay ./replay dotnet
program MassTransit '8, recorded' replay ./replay masstransit
program NServiceBus '9, recorded' replay ./replay nservicebus
program EasyNetQ '7, recorded' replay ./replay easynetq
program rabbitmq-nio '0.1, recorded' replay ./replay swift
