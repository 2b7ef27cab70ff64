//! What the programs in this package share. They print a line per check and "N passed, N failed" at the end, and exit with 1
//! if one failed. Queues and exchanges have names of their own.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

/// What a check fails with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What a check gives.
pub type Checked<T = ()> = Result<T, Failure>;

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A broker's URL, without the slash at its end, which these clients would take for the vhost with the empty name.
pub fn url(variable: &str) -> String {
    let url = std::env::var(variable).unwrap_or_else(|_| "amqp://guest:guest@localhost:5672/".into());
    url.trim_end_matches('/').into()
}

/// A name of this run.
pub fn name(hint: &str) -> String {
    format!("clients-rust-{}-{hint}", std::process::id())
}

/// Fails unless the two are equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Checked {
    if got == want {
        return Ok(());
    }
    Err(format!("got {got:?}, want {want:?}").into())
}

/// Waits for what must come.
pub async fn within<T>(f: impl Future<Output = T>) -> Checked<T> {
    tokio::time::timeout(PATIENCE, f).await.map_err(|_| "what should have happened did not".into())
}

/// Tries again, after a moment, until f succeeds.
pub async fn eventually<T, F: Future<Output = Checked<T>>>(mut f: impl FnMut() -> F) -> Checked<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match f().await {
            Err(_) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(20)).await,
            result => return result,
        }
    }
}

/// Does something with the broker: kill, start, block, unblock.
pub async fn broker(verb: &str) -> Checked {
    let status = tokio::process::Command::new(std::env::var("AMQP_CTL")?).arg(verb).status().await?;
    equal(status.success(), true)
}

/// Bytes that differ from run to run.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Counts checks.
#[derive(Default)]
pub struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    /// Runs a check; one that needs a variable which is not set is skipped.
    pub async fn check(&mut self, name: &str, needs: Option<&str>, check: impl Future<Output = Checked>) {
        if let Some(variable) = needs {
            if std::env::var(variable).is_err() {
                println!("skip {name}: without {variable}");
                return;
            }
        }
        match tokio::time::timeout(4 * PATIENCE, check).await {
            Ok(Ok(())) => {
                self.passed += 1;
                println!("ok   {name}");
            }
            result => {
                self.failed += 1;
                println!("FAIL {name}\n{result:?}");
            }
        }
    }

    /// Prints the sum and ends the process.
    pub fn finish(self) -> ! {
        println!("{} passed, {} failed", self.passed, self.failed);
        std::process::exit(i32::from(self.failed > 0));
    }
}
