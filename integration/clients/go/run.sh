mkdir -p "$cache/go" && go build -o "$cache/go/" ./amqp091 ./watermill || return
program amqp091-go 1.16.0 scenarios "$cache/go/amqp091"
program watermill-amqp 3.0.2 scenarios "$cache/go/watermill"
