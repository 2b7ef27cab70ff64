//! The scenarios of integration/clients/README.md through amqprs, as its users write them. Its TLS is left out: it would bring another
//! library to compile.

use std::collections::{BTreeMap, BTreeSet};

use amqprs::callbacks::{ChannelCallback, DefaultConnectionCallback};
use amqprs::channel::*;
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, FieldTable, FieldValue, Nack, Return};
use async_trait::async_trait;
use clients::{broker, equal, eventually, name, noise, url, within, Checked, Report};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};

type Result<T> = std::result::Result<T, amqprs::error::Error>;

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
    report.check("cancel", None, cancel()).await;
    report.check("bodies", None, bodies()).await;
    report.check("headers", None, headers()).await;
    report.finish()
}

/// Hands on what a channel is told.
struct Told(UnboundedSender<String>);

#[async_trait]
impl ChannelCallback for Told {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<()> {
        let _ = self.0.send(format!("closed: {close}"));
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, cancel: Cancel) -> Result<()> {
        let _ = self.0.send(format!("cancelled {}", cancel.consumer_tag()));
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        let _ = self.0.send(format!("ack {}{}", ack.delivery_tag(), if ack.mutiple() { " and before" } else { "" }));
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        let _ = self.0.send(format!("nack {}", nack.delivery_tag()));
    }

    async fn publish_return(&mut self, _: &Channel, ret: Return, _: BasicProperties, content: Vec<u8>) {
        let _ = self.0.send(format!("{} {} {}", ret.reply_code(), ret.reply_text(), String::from_utf8_lossy(&content)));
    }
}

async fn connect() -> Checked<Connection> {
    let url = url("AMQP_URL");
    let (login, address) = url.trim_start_matches("amqp://").split_once('@').ok_or("the URL has no user")?;
    let (user, password) = login.split_once(':').ok_or("the URL has no password")?;
    let (host, port) = address.split_once(':').ok_or("the URL has no port")?;
    let conn = Connection::open(&OpenConnectionArguments::new(host, port.parse()?, user, password)).await?;
    conn.register_callback(DefaultConnectionCallback).await?;
    Ok(conn)
}

async fn channel(conn: &Connection) -> Checked<(Channel, UnboundedReceiver<String>)> {
    let (sender, told) = unbounded_channel();
    let ch = conn.open_channel(None).await?;
    ch.register_callback(Told(sender)).await?;
    Ok((ch, told))
}

async fn next<T>(receiver: &mut UnboundedReceiver<T>) -> Checked<T> {
    within(receiver.recv()).await?.ok_or_else(|| "it has ended".into())
}

async fn declare(ch: &Channel, queue: &str, exclusive: bool, arguments: FieldTable) -> Checked<String> {
    let args = QueueDeclareArguments::new(queue).exclusive(exclusive).durable(!exclusive).arguments(arguments).finish();
    Ok(ch.queue_declare(args).await?.ok_or("no answer")?.0)
}

async fn exclusive(ch: &Channel) -> Checked<String> {
    declare(ch, "", true, FieldTable::new()).await
}

async fn ready(ch: &Channel, queue: &str) -> Checked<u32> {
    Ok(ch.queue_declare(QueueDeclareArguments::new(queue).passive(true).finish()).await?.ok_or("no answer")?.1)
}

async fn consume(ch: &Channel, queue: &str, no_ack: bool) -> Checked<(String, UnboundedReceiver<ConsumerMessage>)> {
    Ok(ch.basic_consume_rx(BasicConsumeArguments::new(queue, "").manual_ack(!no_ack).finish()).await?)
}

async fn publish(ch: &Channel, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) -> Checked {
    Ok(ch.basic_publish(properties, body.to_vec(), BasicPublishArguments::new(exchange, key)).await?)
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_persistence(true).finish()
}

fn text(message: &ConsumerMessage) -> String {
    String::from_utf8_lossy(message.content.as_deref().unwrap_or_default()).into_owned()
}

fn tag(message: &ConsumerMessage) -> u64 {
    message.deliver.as_ref().map_or(0, |d| d.delivery_tag())
}

/// The tag up to which all is confirmed; an error if something was refused.
fn confirmed(told: &str) -> Checked<u64> {
    let tag = told.strip_prefix("ack ").ok_or_else(|| format!("told {told}"))?;
    Ok(tag.trim_end_matches(" and before").parse()?)
}

/// A loop around open.
async fn recovery() -> Checked {
    struct Session {
        ch: Channel,
        told: UnboundedReceiver<String>,
        deliveries: UnboundedReceiver<ConsumerMessage>,
        published: u64,
        _conn: Connection,
    }
    async fn session() -> Checked<Session> {
        let conn = connect().await?;
        let (ch, told) = channel(&conn).await?;
        ch.exchange_declare(ExchangeDeclareArguments::new(&name("rs-recovery-x"), "topic").durable(true).finish()).await?;
        let queue = declare(&ch, &name("rs-recovery"), false, FieldTable::new()).await?;
        ch.queue_bind(QueueBindArguments::new(&queue, &name("rs-recovery-x"), "a.#")).await?;
        declare(&ch, &name("rs-recovery-mine"), true, FieldTable::new()).await?; // of a dead connection it is free at once
        ch.basic_qos(BasicQosArguments::new(0, 10, false)).await?;
        ch.confirm_select(ConfirmSelectArguments::default()).await?;
        let (_, deliveries) = consume(&ch, &queue, false).await?;
        Ok(Session { ch, told, deliveries, published: 0, _conn: conn })
    }
    async fn publish_one(s: &mut Session, body: &str) -> Checked {
        publish(&s.ch, &name("rs-recovery-x"), "a.b", body.as_bytes(), persistent()).await?;
        s.published += 1;
        while confirmed(&next(&mut s.told).await?)? < s.published {}
        Ok(())
    }
    let mut s = eventually(session).await?;
    let (mut times, mut got) = (BTreeMap::new(), BTreeSet::new());
    for i in 0..300 {
        if i == 100 || i == 200 {
            broker("kill").await?;
            broker("start").await?;
            within(async { while s.ch.is_connection_open() { tokio::task::yield_now().await } }).await?;
        }
        let body = i.to_string();
        loop {
            *times.entry(body.clone()).or_insert(0) += 1;
            if s.ch.is_open() && publish_one(&mut s, &body).await.is_ok() {
                break;
            }
            s = eventually(session).await?;
        }
    }
    while got.len() < times.len() {
        let message = next(&mut s.deliveries).await?;
        let body = text(&message);
        let redelivered = message.deliver.as_ref().is_some_and(|d| d.redelivered());
        if times[&body] == 1 && got.contains(&body) && !redelivered {
            return Err(format!("message {body} came twice and is not flagged").into());
        }
        got.insert(body);
        s.ch.basic_ack(BasicAckArguments::new(tag(&message), false)).await?;
    }
    s.ch.queue_delete(QueueDeleteArguments::new(&name("rs-recovery"))).await?;
    Ok(s.ch.exchange_delete(ExchangeDeleteArguments::new(&name("rs-recovery-x"))).await?)
}

async fn confirms() -> Checked {
    let conn = connect().await?;
    let (ch, mut told) = channel(&conn).await?;
    let queue = declare(&ch, &name("rs-confirms"), false, FieldTable::new()).await?;
    ch.confirm_select(ConfirmSelectArguments::default()).await?;
    for i in 0..1000 {
        publish(&ch, "", &queue, i.to_string().as_bytes(), persistent()).await?;
    }
    let mut all = BTreeSet::new();
    while all.len() < 1000 {
        let ack = next(&mut told).await?;
        let tag = confirmed(&ack)?;
        all.extend(if ack.ends_with("before") { 1..=tag } else { tag..=tag });
    }
    equal(ready(&ch, &queue).await?, 1000)?;
    ch.queue_delete(QueueDeleteArguments::new(&queue)).await?;
    Ok(())
}

async fn returns() -> Checked {
    let conn = connect().await?;
    let (ch, mut told) = channel(&conn).await?;
    ch.confirm_select(ConfirmSelectArguments::default()).await?;
    let args = BasicPublishArguments::new("", &name("nobody")).mandatory(true).finish();
    ch.basic_publish(persistent(), b"lost".to_vec(), args).await?;
    equal(next(&mut told).await?, "312 NO_ROUTE lost".into())?;
    equal(next(&mut told).await?, "ack 1".into())?;
    let queue = exclusive(&ch).await?;
    ch.basic_publish(persistent(), b"found".to_vec(), BasicPublishArguments::new("", &queue).mandatory(true).finish()).await?;
    equal(next(&mut told).await?, "ack 2".into())
}

async fn prefetch() -> Checked {
    let conn = connect().await?;
    let (ch, _told) = channel(&conn).await?;
    let queue = exclusive(&ch).await?;
    for i in 0..10 {
        publish(&ch, "", &queue, i.to_string().as_bytes(), BasicProperties::default()).await?;
    }
    equal(ready(&ch, &queue).await?, 10)?;
    ch.basic_qos(BasicQosArguments::new(0, 5, false)).await?;
    let (_, mut deliveries) = consume(&ch, &queue, false).await?;
    let mut got: Vec<ConsumerMessage> = Vec::new();
    for (count, multiple) in [(5, false), (6, true), (10, true)] {
        while got.len() < count {
            let message = next(&mut deliveries).await?;
            equal(text(&message), got.len().to_string())?;
            got.push(message);
        }
        equal(ready(&ch, &queue).await? as usize, 10 - count)?; // the others are still in the queue
        let which = if multiple { count - 1 } else { 0 };
        ch.basic_ack(BasicAckArguments::new(tag(&got[which]), multiple)).await?;
    }
    Ok(())
}

fn table(entries: &[(&str, FieldValue)]) -> Checked<FieldTable> {
    let mut t = FieldTable::new();
    for (key, value) in entries {
        t.insert((*key).try_into()?, value.clone());
    }
    Ok(t)
}

fn long(s: &str) -> Checked<FieldValue> {
    Ok(FieldValue::S(s.try_into()?))
}

async fn retry() -> Checked {
    let conn = connect().await?;
    let (ch, _told) = channel(&conn).await?;
    let (work, wait) = (name("rs-work"), name("rs-wait"));
    declare(&ch, &work, true, table(&[("x-dead-letter-exchange", long("")?), ("x-dead-letter-routing-key", long(&wait)?)])?).await?;
    let back = [("x-message-ttl", FieldValue::I(50)), ("x-dead-letter-exchange", long("")?), ("x-dead-letter-routing-key", long(&work)?)];
    declare(&ch, &wait, true, table(&back)?).await?;
    let (_, mut deliveries) = consume(&ch, &work, false).await?;
    publish(&ch, "", &work, b"job", persistent()).await?;
    for try_ in 0..4 {
        let message = next(&mut deliveries).await?;
        let mut count = 0;
        let headers = message.basic_properties.as_ref().and_then(|p| p.headers());
        if let Some(FieldValue::A(deaths)) = headers.and_then(|h| h.get(&"x-death".try_into().ok()?)) {
            let shown = format!("{deaths}");
            equal(shown.contains("rejected"), true)?;
            for death in Vec::<FieldValue>::from(deaths.clone()) {
                let FieldValue::F(death) = death else { continue };
                let is = |key: &str, want: &str| matches!(death.get(&key.try_into().unwrap()), Some(FieldValue::S(s)) if s.to_string() == want);
                if let (true, true, Some(FieldValue::l(n))) = (is("queue", &work), is("reason", "rejected"), death.get(&"count".try_into()?)) {
                    count = *n;
                }
            }
        }
        equal(count, try_)?;
        ch.basic_reject(BasicRejectArguments::new(tag(&message), false)).await?;
    }
    Ok(())
}

async fn rpc() -> Checked {
    let conn = connect().await?;
    let (server, _a) = channel(&conn).await?;
    let queue = exclusive(&server).await?;
    let (_, mut requests) = consume(&server, &queue, true).await?;
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let answer = 2 * text(&request).parse::<i32>().unwrap_or(0);
            let Some(properties) = &request.basic_properties else { continue };
            let reply = BasicProperties::default().with_correlation_id(properties.correlation_id().map_or("", |s| s)).finish();
            let to = properties.reply_to().cloned().unwrap_or_default();
            let _ = publish(&server, "", &to, answer.to_string().as_bytes(), reply).await;
        }
    });
    let (client, _b) = channel(&conn).await?;
    let (_, mut replies) = consume(&client, "amq.rabbitmq.reply-to", true).await?;
    for i in 0..20 {
        let properties = BasicProperties::default().with_correlation_id(&i.to_string()).with_reply_to("amq.rabbitmq.reply-to").finish();
        publish(&client, "", &queue, i.to_string().as_bytes(), properties).await?;
    }
    let mut answers = BTreeMap::new();
    for _ in 0..20 {
        let reply = next(&mut replies).await?;
        let id = reply.basic_properties.as_ref().and_then(|p| p.correlation_id().cloned()).unwrap_or_default();
        answers.insert(id, text(&reply));
    }
    equal(answers, (0..20).map(|i| (i.to_string(), (2 * i).to_string())).collect())
}

/// It does not ask for notices; a publish waits, and everything else goes on.
async fn blocked() -> Checked {
    let conn = connect().await?;
    let (ch, mut told) = channel(&conn).await?;
    let queue = declare(&ch, &name("rs-blocked"), false, FieldTable::new()).await?;
    ch.confirm_select(ConfirmSelectArguments::default()).await?;
    publish(&ch, "", &queue, b"before", persistent()).await?;
    equal(next(&mut told).await?, "ack 1".into())?;
    broker("block").await?;
    publish(&ch, "", &queue, b"first", persistent()).await?; // by which a broker may notice
    publish(&ch, "", &queue, b"held", persistent()).await?;
    let other = connect().await?;
    let (consumer, _c) = channel(&other).await?;
    let (_, mut deliveries) = consume(&consumer, &queue, true).await?;
    equal(text(&next(&mut deliveries).await?), "before".into())?;
    broker("unblock").await?;
    equal(text(&next(&mut deliveries).await?), "first".into())?;
    equal(text(&next(&mut deliveries).await?), "held".into())?;
    while confirmed(&next(&mut told).await?)? < 3 {}
    ch.queue_delete(QueueDeleteArguments::new(&queue)).await?;
    Ok(())
}

async fn cancel() -> Checked {
    let conn = connect().await?;
    let (ch, mut told) = channel(&conn).await?;
    let queue = declare(&ch, &name("rs-gone"), false, FieldTable::new()).await?;
    let (tag, _deliveries) = consume(&ch, &queue, false).await?;
    let (other, _d) = channel(&conn).await?;
    other.queue_delete(QueueDeleteArguments::new(&queue)).await?;
    equal(next(&mut told).await?, format!("cancelled {tag}"))?;
    exclusive(&ch).await.map(|_| ()) // the channel lives on
}

async fn bodies() -> Checked {
    let conn = connect().await?;
    let (ch, _told) = channel(&conn).await?;
    let queue = exclusive(&ch).await?;
    let (_, mut deliveries) = consume(&ch, &queue, true).await?;
    for size in [1, 131072 - 8, 131072 - 7, 131072, 4 << 20] {
        let body = noise(size);
        publish(&ch, "", &queue, &body, BasicProperties::default()).await?;
        equal(next(&mut deliveries).await?.content == Some(body), true)?;
    }
    Ok(())
}

async fn headers() -> Checked {
    let conn = connect().await?;
    let (ch, _told) = channel(&conn).await?;
    let queue = exclusive(&ch).await?;
    let sent = table(&[
        ("true", FieldValue::t(true)),
        ("false", FieldValue::t(false)),
        ("i8", FieldValue::b(-8)),
        ("u8", FieldValue::B(200)),
        ("i16", FieldValue::s(-300)),
        ("u16", FieldValue::u(60_000)),
        ("i32", FieldValue::I(-70_000)),
        ("u32", FieldValue::i(4_000_000_000)),
        ("i64", FieldValue::l(i64::MIN)),
        ("f32", FieldValue::f(0.5)),
        ("f64", FieldValue::d(1.25)),
        ("text", long("grün 🐇")?),
        ("empty", long("")?),
        ("time", FieldValue::T(1_700_000_000)),
        ("table", FieldValue::F(table(&[("deeper", FieldValue::I(1))])?)),
        ("null", FieldValue::V),
    ])?;
    let mut properties = BasicProperties::default();
    properties
        .with_headers(sent)
        .with_content_type("text/plain")
        .with_content_encoding("utf-8")
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("c")
        .with_reply_to("r")
        .with_expiration("100000")
        .with_message_id("m")
        .with_timestamp(1_700_000_000)
        .with_message_type("t")
        .with_app_id("a");
    publish(&ch, "", &queue, b"x", properties.clone()).await?;
    let (_, mut deliveries) = consume(&ch, &queue, true).await?;
    let got = next(&mut deliveries).await?.basic_properties.ok_or("no properties")?;
    equal(got.headers(), properties.headers())?;
    let others = |p: &BasicProperties| {
        let numbers = format!("{:?} {:?} {:?}", p.delivery_mode(), p.priority(), p.timestamp());
        let texts = [p.content_type(), p.content_encoding(), p.correlation_id(), p.reply_to(), p.expiration(), p.message_id(), p.message_type(), p.app_id()];
        (numbers, texts.map(|t| t.cloned()))
    };
    equal(others(&got), others(&properties))
}
