# frozen_string_literal: true

# RabbitMQ's extensions of AMQP 0-9-1 through bunny, as its users write them.
#
# Runs against AMQP_URL. Prints a line per check and "N passed, N failed" at the end; exits with 1 if one failed.
# Queues and exchanges have names of their own and are removed.

require "bunny"
require "securerandom"
require "timeout"

URL = ENV.fetch("AMQP_URL", "amqp://guest:guest@localhost:5672/").sub(%r{/\z}, "")
PATIENCE = 30 # seconds for anything that must happen
RUN = SecureRandom.hex(4)
CHECKS = []

def check(name, &block) = CHECKS << [name, block]
def name(hint) = "clients-rb-#{RUN}-#{hint}"

def equal(got, want)
  raise "got #{got.inspect}, want #{want.inspect}" unless got == want
end

def connected
  connection = Bunny.new(URL, automatically_recover: false, continuation_timeout: PATIENCE * 1000).start
  yield connection
ensure
  connection&.close
end

# The next count things that consumers put in a Thread::Queue.
def take(inbox, count) = Timeout.timeout(PATIENCE) { Array.new(count) { inbox.pop } }

def drain(queue)
  got = []
  while (body = queue.pop.last)
    got << body
  end
  got
end

# Failed work waits in a queue with a time to live and comes back, until x-death says that it was tried three times.
check("retry_loop") do
  connected do |connection|
    channel = connection.create_channel
    work = channel.queue(name("work"), exclusive: true, arguments: {
                           "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => name("retry")
                         })
    channel.queue(name("retry"), exclusive: true, arguments: {
                    "x-message-ttl" => 50, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => work.name
                  })
    inbox = Thread::Queue.new
    work.subscribe(manual_ack: true) do |delivery, properties, _body|
      deaths = (properties.headers || {})["x-death"] || []
      rejected = deaths.find { |d| d["queue"] == work.name && d["reason"] == "rejected" }
      if rejected && rejected["count"] == 3
        channel.ack(delivery.delivery_tag)
      else
        channel.reject(delivery.delivery_tag, false)
      end
      inbox << properties.headers
    end
    channel.default_exchange.publish("job", routing_key: work.name, headers: { "app" => "kept" })
    headers = take(inbox, 4).last
    equal(headers["app"], "kept")
    equal(headers["x-first-death-reason"], "rejected")
    equal(headers["x-death"].map { |d| d.values_at("queue", "reason", "count", "exchange", "routing-keys") },
          [[name("retry"), "expired", 3, "", [name("retry")]], [work.name, "rejected", 3, "", [work.name]]])
  end
end

# A full queue refuses: the publisher sees nacks, and what was accepted stays.
check("reject_publish") do
  connected do |connection|
    channel = connection.create_channel
    channel.confirm_select
    queue = channel.queue(name("full"), exclusive: true, arguments: {
                            "x-max-length" => 3, "x-overflow" => "reject-publish"
                          })
    6.times { |i| channel.default_exchange.publish(i.to_s, routing_key: queue.name) }
    equal(channel.wait_for_confirms, false)
    equal(channel.nacked_set.to_a.sort, [4, 5, 6])
    equal(drain(queue), %w[0 1 2])
  end
end

check("priorities") do
  connected do |connection|
    channel = connection.create_channel
    queue = channel.queue(name("priorities"), exclusive: true, arguments: { "x-max-priority" => 5 })
    [0, 5, 1, 5, 9, 3].each_with_index do |priority, i|
      channel.default_exchange.publish(i.to_s, routing_key: queue.name, priority: priority)
    end
    equal(drain(queue), %w[1 3 4 5 2 0]) # 9 counts as 5
  end
end

# One of two consumers gets everything, in order; the other one takes over what the first did not finish.
check("single_active_consumer") do
  connected do |connection|
    active, waiting = connection.create_channel, connection.create_channel
    arguments = { "x-single-active-consumer" => true }
    queue = active.queue(name("single"), exclusive: true, arguments: arguments)
    first, second = Thread::Queue.new, Thread::Queue.new
    queue.subscribe(manual_ack: true) { |delivery, _properties, _body| first << delivery.delivery_tag }
    waiting.queue(queue.name, exclusive: true, arguments: arguments).subscribe do |delivery, _properties, body|
      second << [body, delivery.redelivered?]
    end
    6.times { |i| active.default_exchange.publish(i.to_s, routing_key: queue.name) }
    tags = take(first, 6)
    equal(second.size, 0)
    active.ack(tags[3], true)
    active.close
    equal(take(second, 2), [["4", true], ["5", true]])
  end
end

check("direct_reply_to") do
  connected do |connection|
    client, server = connection.create_channel, connection.create_channel
    queue = server.queue(name("rpc"), exclusive: true)
    queue.subscribe do |_delivery, properties, body|
      server.default_exchange.publish(body.upcase, routing_key: properties.reply_to,
                                                   correlation_id: properties.correlation_id)
    end
    inbox = Thread::Queue.new
    consumer = Bunny::Consumer.new(client, "amq.rabbitmq.reply-to", "", true)
    consumer.on_delivery { |_delivery, properties, body| inbox << [properties.correlation_id, body] }
    client.basic_consume_with(consumer)
    10.times do |i|
      client.default_exchange.publish("call #{i}", routing_key: queue.name, reply_to: "amq.rabbitmq.reply-to",
                                                   correlation_id: i.to_s)
    end
    equal(take(inbox, 10), Array.new(10) { |i| [i.to_s, "CALL #{i}"] })
  end
end

check("delayed_exchange") do
  connected do |connection|
    channel = connection.create_channel
    exchange = channel.exchange(name("delayed"), type: "x-delayed-message", auto_delete: true,
                                                 arguments: { "x-delayed-type" => "fanout" })
    inbox = Thread::Queue.new
    channel.queue("", exclusive: true).bind(exchange).subscribe do |_delivery, properties, body|
      # amq-protocol 2.3 reads the signed 32 bits of a table without their sign.
      negated = [properties.headers["x-delay"]].pack("L").unpack1("l")
      inbox << [body.to_i, negated, Process.clock_gettime(Process::CLOCK_MONOTONIC)]
    end
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    channel.confirm_select
    [300, 100].each { |delay| exchange.publish(delay.to_s, headers: { "x-delay" => delay }) }
    channel.wait_for_confirms
    # Otherwise the order of what is due is that of the publishing.
    quick = Process.clock_gettime(Process::CLOCK_MONOTONIC) - start < 0.1
    got = take(inbox, 2)
    got = got.sort unless quick
    equal(got.map { |delay, header, _at| [delay, header] }, [[100, -100], [300, -300]])
    got.each { |delay, _header, at| raise "came after #{at - start} s" if at - start < delay / 1000.0 }
  end
end

check("confirms_and_returns") do
  connected do |connection|
    channel = connection.create_channel
    channel.confirm_select
    queue = channel.queue(name("confirmed"), durable: true)
    exchange = channel.default_exchange
    returned = Thread::Queue.new
    exchange.on_return { |info, _properties, body| returned << [info.reply_code, info.reply_text, body] }
    exchange.publish("stored", routing_key: queue.name, mandatory: true, persistent: true)
    exchange.publish("lost", routing_key: name("nowhere"), mandatory: true, persistent: true)
    equal(channel.wait_for_confirms, true)
    equal(take(returned, 1), [[312, "NO_ROUTE", "lost"]])
    equal(drain(queue), ["stored"])
    queue.delete
  end
end

# The broker tells consumers that their queue is gone; the channel lives on.
check("consumer_cancel") do
  connected do |connection|
    channel, other = connection.create_channel, connection.create_channel
    queue = channel.queue(name("doomed"), durable: true)
    cancelled = Thread::Queue.new
    consumer = queue.subscribe(on_cancellation: ->(method) { cancelled << method.consumer_tag }) { nil }
    other.queue_delete(queue.name)
    equal(take(cancelled, 1), [consumer.consumer_tag])
    channel.queue(name("next"), exclusive: true)
  end
end

check("streams") do
  connected do |connection|
    channel = connection.create_channel
    channel.confirm_select
    queue = channel.queue(name("stream"), durable: true, arguments: { "x-queue-type" => "stream" })
    20.times { |i| channel.default_exchange.publish(i.to_s, routing_key: queue.name) }
    equal(channel.wait_for_confirms, true)
    [["first", 0], ["first", 0], [13, 13]].each do |offset, from|
      reader = connection.create_channel
      reader.prefetch(5)
      inbox = Thread::Queue.new
      consumer = Bunny::Consumer.new(reader, queue.name, reader.generate_consumer_tag, false, false,
                                     { "x-stream-offset" => offset })
      consumer.on_delivery do |delivery, properties, body|
        inbox << [properties.headers["x-stream-offset"], body]
        reader.ack(delivery.delivery_tag)
      end
      reader.basic_consume_with(consumer)
      equal(take(inbox, 20 - from), (from...20).map { |i| [i, i.to_s] })
      consumer.cancel
    end
    queue.delete
  end
end

passed = failed = 0
CHECKS.each do |name, block|
  block.call
  passed += 1
  puts "ok   #{name}"
rescue StandardError => e
  failed += 1
  puts "FAIL #{name}", e.full_message(highlight: false)
end
puts "#{passed} passed, #{failed} failed"
exit(failed.zero? ? 0 : 1)
