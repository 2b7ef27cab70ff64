//! The scenarios of integration/clients/README.md through lapin, as its users write them.

use std::collections::{BTreeMap, BTreeSet};

use clients::{broker, equal, eventually, name, noise, url, within, Checked, Report};
use futures_util::StreamExt;
use lapin::options::*;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, Event, ExchangeKind};

#[tokio::main]
async fn main() {
    let mut report = Report::default();
    report.check("recovery", Some("AMQP_CTL"), recovery()).await;
    report.check("confirms", None, confirms()).await;
    report.check("returns", None, returns()).await;
    report.check("prefetch", None, prefetch()).await;
    report.check("retry", None, retry()).await;
    report.check("rpc", None, rpc()).await;
    report.check("blocked", Some("AMQP_CTL"), blocked()).await;
    report.check("tls", Some("AMQPS_URL"), tls()).await;
    report.check("cancel", None, cancel()).await;
    report.check("bodies", None, bodies()).await;
    report.check("headers", None, headers()).await;
    report.finish()
}

async fn connect() -> Checked<Connection> {
    Ok(Connection::connect(&url("AMQP_URL"), ConnectionProperties::default()).await?)
}

async fn channel(conn: &Connection) -> Checked<Channel> {
    let ch = conn.create_channel().await?;
    ch.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(ch)
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// Publishes and waits for the confirm.
async fn publish(ch: &Channel, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) -> Checked {
    let confirm = ch.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), body, properties).await?;
    equal(within(confirm).await??.is_ack(), true)
}

async fn exclusive(ch: &Channel, hint: &str, arguments: FieldTable) -> Checked<String> {
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let name = if hint.is_empty() { String::new() } else { name(hint) };
    Ok(ch.queue_declare(name.into(), options, arguments).await?.name().to_string())
}

async fn durable(ch: &Channel, hint: &str) -> Checked<String> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    Ok(ch.queue_declare(name(hint).into(), options, FieldTable::default()).await?.name().to_string())
}

async fn consume(ch: &Channel, queue: &str, no_ack: bool) -> Checked<Consumer> {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    Ok(ch.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?)
}

async fn next(consumer: &mut Consumer) -> Checked<lapin::message::Delivery> {
    Ok(within(consumer.next()).await?.ok_or("the consumer has ended")??)
}

async fn delete(ch: &Channel, queue: &str) -> Checked<u32> {
    Ok(ch.queue_delete(queue.into(), QueueDeleteOptions::default()).await?)
}

/// A loop around connect.
async fn recovery() -> Checked {
    async fn session() -> Checked<(Connection, Channel, Consumer)> {
        let conn = connect().await?;
        let ch = channel(&conn).await?;
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        ch.exchange_declare(name("recovery-x").into(), ExchangeKind::Topic, options, FieldTable::default()).await?;
        let queue = durable(&ch, "recovery").await?;
        ch.queue_bind(queue.as_str().into(), name("recovery-x").into(), "a.#".into(), QueueBindOptions::default(), FieldTable::default()).await?;
        exclusive(&ch, "recovery-mine", FieldTable::default()).await?; // of a dead connection it is free at once
        ch.basic_qos(10, BasicQosOptions::default()).await?;
        let consumer = consume(&ch, &queue, false).await?;
        Ok((conn, ch, consumer))
    }
    let (mut _conn, mut ch, mut consumer) = eventually(session).await?;
    let (mut published, mut got) = (BTreeMap::new(), BTreeSet::new());
    for i in 0..300 {
        if i == 100 || i == 200 {
            broker("kill").await?;
            broker("start").await?;
        }
        let body = i.to_string();
        loop {
            *published.entry(body.clone()).or_insert(0) += 1;
            if publish(&ch, &name("recovery-x"), "a.b", body.as_bytes(), persistent()).await.is_ok() {
                break;
            }
            (_conn, ch, consumer) = eventually(session).await?;
        }
    }
    while got.len() < published.len() {
        let Ok(delivery) = next(&mut consumer).await else {
            (_conn, ch, consumer) = eventually(session).await?;
            continue;
        };
        let body = String::from_utf8_lossy(&delivery.data).into_owned();
        if published[&body] == 1 && got.contains(&body) && !delivery.redelivered {
            return Err(format!("message {body} came twice and is not flagged").into());
        }
        got.insert(body);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    delete(&ch, &name("recovery")).await?;
    Ok(ch.exchange_delete(name("recovery-x").into(), ExchangeDeleteOptions::default()).await?)
}

async fn confirms() -> Checked {
    let conn = connect().await?;
    let ch = channel(&conn).await?;
    let queue = durable(&ch, "confirms").await?;
    let mut all = Vec::new();
    for i in 0..1000 {
        let body = i.to_string();
        all.push(ch.basic_publish("".into(), queue.as_str().into(), BasicPublishOptions::default(), body.as_bytes(), persistent()).await?);
    }
    for confirm in all {
        equal(within(confirm).await??.is_ack(), true)?;
    }
    equal(delete(&ch, &queue).await?, 1000)
}

async fn returns() -> Checked {
    let conn = connect().await?;
    let ch = channel(&conn).await?;
    let queue = exclusive(&ch, "", FieldTable::default()).await?;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let lost = within(ch.basic_publish("".into(), name("nobody").into(), options, b"lost", persistent()).await?).await??;
    equal(lost.is_ack(), true)?;
    let message = lost.take_message().ok_or("confirmed and not returned")?;
    equal((message.reply_code, message.reply_text.to_string(), message.data.clone()), (312, "NO_ROUTE".into(), b"lost".to_vec()))?;
    let found = within(ch.basic_publish("".into(), queue.as_str().into(), options, b"found", persistent()).await?).await??;
    equal((found.is_ack(), found.take_message().is_none()), (true, true))
}

async fn prefetch() -> Checked {
    let conn = connect().await?;
    let ch = channel(&conn).await?;
    let queue = exclusive(&ch, "", FieldTable::default()).await?;
    for i in 0..10 {
        publish(&ch, "", &queue, i.to_string().as_bytes(), BasicProperties::default()).await?;
    }
    ch.basic_qos(5, BasicQosOptions::default()).await?;
    let mut consumer = consume(&ch, &queue, false).await?;
    let passive = QueueDeclareOptions { passive: true, exclusive: true, ..Default::default() };
    let mut got = Vec::new();
    for (count, multiple) in [(5, false), (6, true), (10, true)] {
        while got.len() < count {
            let delivery = next(&mut consumer).await?;
            equal(delivery.data.clone(), got.len().to_string().into_bytes())?;
            got.push(delivery);
        }
        // The others are still in the queue.
        let ready = ch.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await?.message_count();
        equal(ready as usize, 10 - count)?;
        let which = if multiple { count - 1 } else { 0 };
        got[which].ack(BasicAckOptions { multiple }).await?;
    }
    Ok(())
}

fn dead_letters_to(queue: &str, ttl: Option<i32>) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
    if let Some(ms) = ttl {
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(ms));
    }
    arguments
}

/// How often the queue rejected the message, as x-death says.
fn rejections(properties: &BasicProperties, queue: &str) -> i64 {
    let Some(AMQPValue::FieldArray(deaths)) = properties.headers().as_ref().and_then(|h| h.inner().get("x-death")) else { return 0 };
    for death in deaths.as_slice() {
        let AMQPValue::FieldTable(death) = death else { continue };
        let text = |key: &str| match death.inner().get(key) {
            Some(AMQPValue::LongString(s)) => s.to_string(),
            _ => String::new(),
        };
        if let (true, true, Some(AMQPValue::LongLongInt(n))) = (text("queue") == queue, text("reason") == "rejected", death.inner().get("count")) {
            return *n;
        }
    }
    0
}

async fn retry() -> Checked {
    let conn = connect().await?;
    let ch = channel(&conn).await?;
    let work = exclusive(&ch, "work", dead_letters_to(&name("wait"), None)).await?;
    exclusive(&ch, "wait", dead_letters_to(&work, Some(50))).await?;
    let mut consumer = consume(&ch, &work, false).await?;
    publish(&ch, "", &work, b"job", persistent()).await?;
    for try_ in 0..4 {
        let delivery = next(&mut consumer).await?;
        equal(rejections(&delivery.properties, &work), try_)?;
        delivery.reject(BasicRejectOptions::default()).await?;
    }
    Ok(())
}

async fn rpc() -> Checked {
    let conn = connect().await?;
    let server = channel(&conn).await?;
    let queue = exclusive(&server, "rpc", FieldTable::default()).await?;
    let mut requests = consume(&server, &queue, true).await?;
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            let answer = 2 * String::from_utf8_lossy(&request.data).parse::<i32>().unwrap_or(0);
            let properties = BasicProperties::default().with_correlation_id(request.properties.correlation_id().clone().unwrap_or_default());
            let to = request.properties.reply_to().clone().unwrap_or_default();
            let _ = server.basic_publish("".into(), to, BasicPublishOptions::default(), answer.to_string().as_bytes(), properties).await;
        }
    });
    let client = channel(&conn).await?;
    let mut replies = consume(&client, "amq.rabbitmq.reply-to", true).await?;
    for i in 0..20 {
        let properties = BasicProperties::default().with_correlation_id(i.to_string().into()).with_reply_to("amq.rabbitmq.reply-to".into());
        publish(&client, "", &queue, i.to_string().as_bytes(), properties).await?;
    }
    let mut answers = BTreeMap::new();
    for _ in 0..20 {
        let reply = next(&mut replies).await?;
        answers.insert(reply.properties.correlation_id().clone().unwrap_or_default().to_string(), String::from_utf8_lossy(&reply.data).into_owned());
    }
    equal(answers, (0..20).map(|i| (i.to_string(), (2 * i).to_string())).collect())
}

async fn blocked() -> Checked {
    let conn = connect().await?;
    let mut events = Box::pin(conn.events_listener().filter(|e| {
        let notice = matches!(e, Event::ConnectionBlocked(_) | Event::ConnectionUnblocked);
        async move { notice }
    }));
    let ch = channel(&conn).await?;
    let queue = durable(&ch, "blocked").await?;
    publish(&ch, "", &queue, b"before", persistent()).await?;
    broker("block").await?;
    let first = ch.basic_publish("".into(), queue.as_str().into(), BasicPublishOptions::default(), b"first", persistent()).await?;
    match within(events.next()).await? {
        Some(Event::ConnectionBlocked(reason)) => equal(reason.as_str(), "low on memory")?,
        other => return Err(format!("told {other:?}").into()),
    }
    let other = connect().await?;
    let mut consumer = consume(&other.create_channel().await?, &queue, true).await?;
    equal(next(&mut consumer).await?.data, b"before".to_vec())?;
    broker("unblock").await?;
    equal(matches!(within(events.next()).await?, Some(Event::ConnectionUnblocked)), true)?;
    equal(within(first).await??.is_ack(), true)?;
    publish(&ch, "", &queue, b"after", persistent()).await?;
    equal(next(&mut consumer).await?.data, b"first".to_vec())?;
    equal(next(&mut consumer).await?.data, b"after".to_vec())?;
    delete(&ch, &queue).await.map(|_| ())
}

async fn tls() -> Checked {
    let file = |f: &str| -> Checked<Vec<u8>> { Ok(std::fs::read(format!("{}/{f}.pem", std::env::var("BROKER_TLS")?))?) };
    let secure = |certificate: Option<&'static str>| async move {
        let identity = match certificate {
            Some(c) => Some(OwnedIdentity::PKCS8 { pem: file(c)?, key: file(&format!("{c}-key"))? }),
            None => None,
        };
        let config = OwnedTLSConfig { identity, cert_chain: Some(String::from_utf8(file("ca")?)?) };
        let runtime = lapin::runtime::default_runtime()?;
        let conn = within(Connection::connect_with_config(&url("AMQPS_URL"), ConnectionProperties::default(), config, runtime)).await??;
        Checked::Ok(conn)
    };
    let conn = secure(Some("client")).await?;
    let ch = channel(&conn).await?;
    let queue = exclusive(&ch, "", FieldTable::default()).await?;
    publish(&ch, "", &queue, b"safe", BasicProperties::default()).await?;
    equal(next(&mut consume(&ch, &queue, true).await?).await?.data, b"safe".to_vec())?;
    for certificate in [Some("other"), None] {
        if secure(certificate).await.is_ok() {
            return Err(format!("connected with {certificate:?}").into());
        }
    }
    Ok(())
}

async fn cancel() -> Checked {
    let conn = connect().await?;
    let ch = channel(&conn).await?;
    let queue = durable(&ch, "gone").await?;
    let mut consumer = consume(&ch, &queue, false).await?;
    delete(&channel(&conn).await?, &queue).await?;
    equal(within(consumer.next()).await?.is_none(), true)?;
    exclusive(&ch, "", FieldTable::default()).await.map(|_| ()) // the channel lives on
}

async fn bodies() -> Checked {
    let conn = connect().await?;
    let ch = channel(&conn).await?;
    let queue = exclusive(&ch, "", FieldTable::default()).await?;
    let mut consumer = consume(&ch, &queue, true).await?;
    for size in [0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20] {
        let body = noise(size);
        publish(&ch, "", &queue, &body, BasicProperties::default()).await?;
        equal(next(&mut consumer).await?.data == body, true)?;
    }
    Ok(())
}

async fn headers() -> Checked {
    let conn = connect().await?;
    let ch = channel(&conn).await?;
    let queue = exclusive(&ch, "", FieldTable::default()).await?;
    let mut table = FieldTable::default();
    table.insert("deeper".into(), AMQPValue::LongInt(1));
    let list = FieldArray::from(vec![AMQPValue::LongInt(1), AMQPValue::LongString("two".into()), AMQPValue::FieldTable(table.clone())]);
    let mut sent = FieldTable::default();
    for (key, value) in [
        ("true", AMQPValue::Boolean(true)),
        ("false", AMQPValue::Boolean(false)),
        ("i8", AMQPValue::ShortShortInt(-8)),
        ("u8", AMQPValue::ShortShortUInt(200)),
        ("i16", AMQPValue::ShortInt(-300)),
        ("u16", AMQPValue::ShortUInt(60_000)),
        ("i32", AMQPValue::LongInt(-70_000)),
        ("u32", AMQPValue::LongUInt(4_000_000_000)),
        ("i64", AMQPValue::LongLongInt(i64::MIN)),
        ("f32", AMQPValue::Float(0.5)),
        ("f64", AMQPValue::Double(1.25)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 12345 })),
        ("text", AMQPValue::LongString("grün 🐇".into())),
        ("empty", AMQPValue::LongString("".into())),
        ("bytes", AMQPValue::ByteArray(vec![0, 255].into())),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("table", AMQPValue::FieldTable(table)),
        ("list", AMQPValue::FieldArray(list)),
        ("null", AMQPValue::Void),
    ] {
        sent.insert(key.into(), value);
    }
    let properties = BasicProperties::default()
        .with_headers(sent)
        .with_content_type("text/plain".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_expiration("100000".into())
        .with_message_id("m".into())
        .with_timestamp(1_700_000_000)
        .with_type("t".into())
        .with_app_id("a".into());
    publish(&ch, "", &queue, b"x", properties.clone()).await?;
    let got = next(&mut consume(&ch, &queue, true).await?).await?;
    equal(got.properties.clone(), properties)
}
