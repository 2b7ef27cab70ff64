# frozen_string_literal: true

# The scenarios of integration/clients/README.md through bunny, as its users write them.

require "bunny"
require "English"
require "securerandom"
require "timeout"

URL = ENV.fetch("AMQP_URL", "amqp://guest:guest@localhost:5672/").sub(%r{/\z}, "")
PATIENCE = 30 # seconds for anything that must happen
RUN = SecureRandom.hex(4)
CHECKS = []

def check(name, needs = nil, &block) = CHECKS << [name, needs, block]
def name(hint) = "clients-rb-#{RUN}-#{hint}"

def equal(got, want)
  raise "got #{got.inspect}, want #{want.inspect}" unless got == want
end

def connected(**options)
  connection = Bunny.new(URL, automatically_recover: false, continuation_timeout: PATIENCE * 1000, **options).start
  yield connection
ensure
  connection&.close if connection&.open?
end

# The next count things that consumers put in a Thread::Queue.
def take(inbox, count = 1) = Timeout.timeout(PATIENCE) { Array.new(count) { inbox.pop } }

def eventually
  Timeout.timeout(PATIENCE) { sleep 0.05 until yield }
end

# Does something with the broker: kill, start, block, unblock.
def control(verb)
  output = IO.popen([ENV.fetch("AMQP_CTL"), verb], err: %i[child out], &:read)
  raise "#{verb}: #{output}" unless $CHILD_STATUS.success?
end

# Bunny recovers by itself: the topology, the consumers, the confirm mode.
check("recovery", "AMQP_CTL") do
  recovered = Thread::Queue.new
  connection = Bunny.new(URL, network_recovery_interval: 0.1, recover_from_connection_close: true, recovery_attempts: 300,
                              recovery_completed: -> { recovered << true },
                              continuation_timeout: PATIENCE * 1000, logger: Logger.new(IO::NULL)).start
  channel = connection.create_channel
  channel.prefetch(10)
  exchange = channel.topic(name("recovery"), durable: true)
  queue = channel.queue(name("recovery"), durable: true).bind(exchange, routing_key: "a.#")
  channel.queue(name("recovery-mine"), exclusive: true) # of a dead connection it is free at once
  got = Thread::Queue.new
  queue.subscribe(manual_ack: true) do |delivery, _properties, body|
    got << body
    channel.ack(delivery.delivery_tag)
  rescue Bunny::Exception
    nil # it comes again
  end
  publisher = connection.create_channel
  publisher.confirm_select
  to = Bunny::Exchange.new(publisher, :topic, name("recovery"), durable: true)
  number = 0
  3.times do |round|
    sent = []
    100.times do |i|
      if i == 50 && round < 2
        control("kill")
        control("start")
        # A publish that fails while another thread recovers the channels ends that recovery: nobody tries again.
        Timeout.timeout(PATIENCE) { recovered.pop }
      end
      number += 1
      Timeout.timeout(PATIENCE) do
        to.publish(number.to_s, routing_key: "a.b", persistent: true)
        raise "nacked" unless publisher.wait_for_confirms
      rescue Bunny::Exception, Timeout::Error, SystemCallError, IOError
        sleep 0.05
        retry
      end
      sent << number.to_s
    end
    missing = sent
    Timeout.timeout(PATIENCE) { missing -= [got.pop] until missing.empty? }
  end
  queue.delete
  exchange.delete
  connection.close
end

check("confirms") do
  connected do |connection|
    channel = connection.create_channel
    queue = channel.queue(name("confirms"), durable: true)
    channel.confirm_select
    1000.times { |i| queue.publish(i.to_s, persistent: true) }
    equal(channel.wait_for_confirms, true)
    equal(queue.message_count, 1000)
    queue.delete
  end
end

check("returns") do
  connected do |connection|
    channel = connection.create_channel
    seen = Thread::Queue.new
    exchange = channel.default_exchange
    exchange.on_return { |info, _properties, body| seen << "#{info.reply_code} #{info.reply_text} #{body}" }
    channel.confirm_select(->(tag, _multiple, _nack) { seen << "ack #{tag}" })
    queue = channel.queue("", exclusive: true)
    exchange.publish("lost", routing_key: name("nobody"), mandatory: true)
    equal(take(seen, 2), ["312 NO_ROUTE lost", "ack 1"])
    exchange.publish("found", routing_key: queue.name, mandatory: true)
    equal(take(seen), ["ack 2"])
  end
end

check("prefetch") do
  connected do |connection|
    channel = connection.create_channel
    channel.prefetch(5)
    queue = channel.queue("", exclusive: true)
    channel.confirm_select
    10.times { |i| queue.publish(i.to_s) }
    channel.wait_for_confirms
    got = Thread::Queue.new
    queue.subscribe(manual_ack: true) { |delivery, _properties, body| got << [delivery.delivery_tag, body] }
    first = take(got, 5)
    # What the broker had sent beyond it would be here before this answer.
    queue.message_count
    equal(got.size, 0)
    channel.ack(first[0][0])
    sixth = take(got)
    queue.message_count
    equal(got.size, 0)
    channel.ack(sixth[0][0], true)
    rest = take(got, 4)
    equal((first + sixth + rest).map(&:last), (0..9).map(&:to_s))
  end
end

check("retry") do
  connected do |connection|
    channel = connection.create_channel
    work = channel.queue(name("work"), exclusive: true, arguments: {
                           "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => name("wait")
                         })
    channel.queue(name("wait"), exclusive: true, arguments: {
                    "x-message-ttl" => 50, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => work.name
                  })
    tries = Thread::Queue.new
    work.subscribe(manual_ack: true) do |delivery, properties, _body|
      death = (properties.headers || {}).fetch("x-death", []).find { |d| d["queue"] == work.name && d["reason"] == "rejected" }
      count = death ? death["count"] : 0
      count < 3 ? channel.reject(delivery.delivery_tag) : channel.ack(delivery.delivery_tag)
      tries << count
    end
    work.publish("job")
    equal(take(tries, 4), [0, 1, 2, 3])
  end
end

check("rpc") do
  connected do |connection|
    server = connection.create_channel
    server.queue(name("rpc"), exclusive: true).subscribe do |_delivery, properties, body|
      server.default_exchange.publish((body.to_i * 2).to_s, routing_key: properties.reply_to, correlation_id: properties.correlation_id)
    end
    client = connection.create_channel
    answers = Thread::Queue.new
    client.basic_consume("amq.rabbitmq.reply-to", "", true) { |_delivery, properties, body| answers << [properties.correlation_id, body] }
    20.times { |i| client.default_exchange.publish(i.to_s, routing_key: name("rpc"), reply_to: "amq.rabbitmq.reply-to", correlation_id: "id#{i}") }
    equal(take(answers, 20).sort, (0..19).map { |i| ["id#{i}", (2 * i).to_s] }.sort)
  end
end

check("blocked", "AMQP_CTL") do
  connected do |connection|
    notices = Thread::Queue.new
    connection.on_blocked { |method| notices << "blocked: #{method.reason}" }
    connection.on_unblocked { |_method| notices << "unblocked" }
    channel = connection.create_channel
    queue = channel.queue(name("blocked"), durable: true)
    channel.confirm_select
    queue.publish("before", persistent: true)
    channel.wait_for_confirms
    control("block")
    queue.publish("first", persistent: true) # by which a broker may notice
    equal(take(notices), ["blocked: low on memory"])
    queue.publish("held", persistent: true)
    got = Thread::Queue.new
    connected do |other|
      other.create_channel.queue(name("blocked"), durable: true).subscribe { |_delivery, _properties, body| got << body }
      equal(take(got), ["before"])
      control("unblock")
      equal(take(notices), ["unblocked"])
      equal(take(got, 2), %w[first held])
      equal(channel.wait_for_confirms, true)
    end
    queue.delete
  end
end

check("tls", "AMQPS_URL") do
  dir = ENV.fetch("BROKER_TLS")
  url = ENV.fetch("AMQPS_URL").sub(%r{/\z}, "")
  connect = lambda do |certificate|
    files = certificate ? { tls_cert: "#{dir}/#{certificate}.pem", tls_key: "#{dir}/#{certificate}-key.pem" } : {}
    Bunny.new(url, tls: true, tls_ca_certificates: ["#{dir}/ca.pem"], verify_peer: true, automatically_recover: false, recovery_attempts: 0,
                   connection_timeout: PATIENCE, logger: Logger.new(IO::NULL), **files).start
  end
  connection = connect.call("client")
  queue = connection.create_channel.queue("", exclusive: true)
  queue.publish("safe")
  eventually { queue.pop.last == "safe" }
  connection.close
  ["other", nil].each do |certificate|
    connect.call(certificate)
  rescue OpenSSL::SSL::SSLError, Bunny::Exception, SystemCallError, IOError
    next
  else
    raise "connected with #{certificate.inspect}"
  end
end

check("cancel") do
  connected do |connection|
    queue = connection.create_channel.queue(name("gone"))
    cancelled = Thread::Queue.new
    queue.subscribe_with(Bunny::Consumer.new(queue.channel, queue).tap { |c| c.on_cancellation { cancelled << true } })
    connected { |other| other.create_channel.queue_delete(name("gone")) }
    take(cancelled)
  end
end

check("bodies") do
  connected do |connection|
    queue = connection.create_channel.queue("", exclusive: true)
    [0, 1, 131_072 - 8, 131_072 - 7, 131_072, 4 << 20].each do |size|
      body = Random.bytes(size)
      queue.publish(body)
      got = nil
      eventually { got = queue.pop.last }
      equal([got.bytesize, got.b == body], [size, true])
    end
  end
end

check("headers") do
  connected do |connection|
    queue = connection.create_channel.queue("", exclusive: true)
    headers = {
      "true" => true, "false" => false, "int" => -5, "big" => -(2**62), "text" => "grün 🐇".b, "empty" => "", "null" => nil, "double" => 1.25,
      "table" => { "in" => { "deeper" => 1 } }, "list" => [1, "two", [3], { "four" => 4 }], "time" => Time.at(1_700_000_000)
    }
    properties = {
      content_type: "text/plain", content_encoding: "utf-8", delivery_mode: 2, priority: 9, correlation_id: "c", reply_to: "r", expiration: "100000",
      message_id: "m", timestamp: 1_700_000_000, type: "t", user_id: connection.user, app_id: "a"
    }
    queue.publish("x", headers: headers, **properties)
    got = nil
    eventually { got = queue.pop[1] }
    equal(got.headers, headers)
    properties.each { |key, value| equal([key, got[key]], [key, value]) unless key == :timestamp }
    equal(got.timestamp.to_i, properties[:timestamp])
  end
end

passed = failed = 0
CHECKS.each do |name, needs, block|
  if needs && !ENV[needs]
    puts "skip #{name}: #{needs} is not set"
    next
  end
  block.call
  passed += 1
  puts "ok   #{name}"
rescue Exception => e # the report names it, the next one runs
  failed += 1
  puts "FAIL #{name}", e.full_message(highlight: false)
end
puts "#{passed} passed, #{failed} failed"
exit(failed.zero?)
