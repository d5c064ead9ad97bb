//! The load: some connections, each with one call under way at any time.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use crate::bench::wire::{Caller, Connection};
use crate::{clock, http, stop};

/// What the tool is told, and must say.
const TEXT: &str = "the tide comes in and the tide goes out";

/// Calls against one endpoint.
pub struct Load {
    port: u16,
    request: Vec<u8>,
    connections: usize,
}

impl Load {
    /// Calls of one of the echo server's tools.
    pub fn new(caller: Caller<'_>, tool: &str, connections: usize) -> Self {
        let params = json!({"name": tool, "arguments": {"text": TEXT}});
        Self {
            port: caller.port,
            request: caller.request("tools/call", tool, params),
            connections,
        }
    }

    /// Keeps the connections busy for a while.
    pub fn drive(&self, length: Duration) -> Result<Sample> {
        stop::check()?;
        let mut sample = Sample::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|_| scope.spawn(|| self.connection(length)))
                .collect();
            for thread in threads {
                let part = thread
                    .join()
                    .map_err(|_| anyhow!("a connection's thread died"))??;
                sample.micros.extend(part.micros);
                sample.errors += part.errors;
            }
            Ok::<(), anyhow::Error>(())
        })?;
        sample.lasted = length;
        if sample.micros.is_empty() {
            bail!("no call to port {} succeeded", self.port);
        }
        Ok(sample)
    }

    fn connection(&self, length: Duration) -> Result<Sample> {
        let mut sample = Sample::default();
        let began = clock::instant();
        let mut connection = Connection::open(self.port)?;
        while began.elapsed() < length && !stop::asked() {
            let sent = clock::instant();
            let answered = connection.exchange(&self.request);
            match answered {
                Ok(answer) if is_echo(&answer) => {
                    let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
                    sample.micros.push(micros);
                }
                Ok(answer) if sample.errors == 0 => {
                    sample.errors += 1;
                    eprintln!(
                        "an answer was no echo: {} {}",
                        answer.status,
                        String::from_utf8_lossy(&answer.body)
                    );
                }
                Ok(_) | Err(_) => sample.errors += 1,
            }
        }
        Ok(sample)
    }
}

fn is_echo(answer: &http::Response) -> bool {
    let text = TEXT.as_bytes();
    answer.status == 200 && answer.body.windows(text.len()).any(|window| window == text)
}

/// What the calls took.
#[derive(Clone, Default)]
pub struct Sample {
    micros: Vec<u32>,
    lasted: Duration,
    /// Calls that were not answered as they should be.
    pub errors: u64,
}

impl Sample {
    /// Of calls that took this long, in a while.
    pub fn of(micros: Vec<u32>, lasted: Duration) -> Self {
        Self {
            micros,
            lasted,
            errors: 0,
        }
    }

    /// Adds another sample.
    pub fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.lasted += other.lasted;
        self.errors += other.errors;
    }

    /// Calls that were answered.
    pub fn calls(&self) -> usize {
        self.micros.len()
    }

    /// Answered calls per second.
    pub fn per_second(&self) -> f64 {
        f64::from(u32::try_from(self.calls()).unwrap_or(u32::MAX)) / self.lasted.as_secs_f64()
    }

    /// The latency in microseconds that this share of the calls stayed within.
    pub fn percentile(&mut self, percent: usize) -> u32 {
        self.micros.sort_unstable();
        let last = self.micros.len().saturating_sub(1);
        self.micros.get(last * percent / 100).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::echo::{Echo, TOOL};

    #[test]
    fn calls_of_the_echo_server_are_counted_and_none_fails() {
        let caller = Caller {
            port: Echo::start().unwrap().port,
            token: None,
            tasks: false,
        };
        let load = Load::new(caller, TOOL, 2);
        let mut sample = load.drive(Duration::from_millis(100)).unwrap();
        assert!(sample.calls() > 10);
        assert_eq!(sample.errors, 0);
        assert!(sample.percentile(50) <= sample.percentile(99));
    }
}
