//! How much may one key ask for? Buckets of requests and tokens, and a count of requests at once.
//!
//! A bucket fills evenly up to a minute's worth. Prompt tokens are taken before the work, generated ones after it, so
//! a bucket may go below zero and the key then waits until it is filled again.

use crate::store::KeyLimits;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Keys remembered at once; beyond them, full buckets of idle keys are forgotten.
const KEYS_MAX: usize = 10_000;

/// The buckets of all keys.
#[derive(Clone, Default)]
pub struct Limiter {
    keys: Arc<Mutex<HashMap<i64, Buckets>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Buckets {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    n_running: u32,
}

/// A store of permission that fills with time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_min: f64,
    level: f64,
    at: Instant,
}

/// What is left of a limit, for the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    /// The limit, requests or tokens a minute.
    pub limit: u32,
    /// Requests or tokens that may be used now.
    pub remaining: u32,
    /// Time until the bucket is full again.
    pub reset: Duration,
}

/// What is left of a key's limits a minute; `None` where it has no such limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Standing {
    /// Its requests.
    pub requests: Option<Left>,
    /// Its tokens, prompt and generated.
    pub tokens: Option<Left>,
}

/// Why a key must wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refusal {
    /// Which limit: `requests at once`, `requests a minute` or `tokens a minute`.
    pub what: &'static str,
    /// Its value, in what `what` counts.
    pub limit: u32,
    /// Time after which asking again may succeed.
    pub retry_after: Duration,
    /// What is left of all limits.
    pub standing: Standing,
}

/// A request that was let in; dropping it lets the next one in.
pub struct Permit {
    limiter: Limiter,
    key_id: i64,
    /// What was left when it was let in.
    pub standing: Standing,
}

impl Bucket {
    fn renew(kept: Option<Self>, per_min: Option<u32>, now: Instant) -> Option<Self> {
        let per_min = f64::from(per_min?);
        let kept = kept.unwrap_or(Self { per_min, level: per_min, at: now });
        let waited = now.saturating_duration_since(kept.at).as_secs_f64();
        Some(Self { per_min, level: (kept.level + waited * per_min / 60.0).min(per_min), at: now })
    }

    /// Time until `wanted` (or a full bucket, where it holds less) is there.
    fn wait_for(&self, wanted: f64) -> Duration {
        self.time_to(wanted.min(self.per_min))
    }

    fn time_to(&self, level: f64) -> Duration {
        let missing = (level - self.level).max(0.0);
        Duration::try_from_secs_f64(missing * 60.0 / self.per_min).unwrap_or(Duration::from_secs(60))
    }

    fn left(&self) -> Left {
        let reset = self.time_to(self.per_min);
        Left { limit: self.per_min as u32, remaining: self.level.max(0.0) as u32, reset }
    }
}

impl Buckets {
    fn standing(&self) -> Standing {
        Standing {
            requests: self.requests.as_ref().map(Bucket::left),
            tokens: self.tokens.as_ref().map(Bucket::left),
        }
    }

    /// The first limit that does not allow one more request of `n_tokens`.
    fn obstacle(&self, limits: KeyLimits, n_tokens: f64) -> Option<(&'static str, u32, Duration)> {
        if let Some(limit) = limits.concurrency.filter(|limit| self.n_running >= *limit) {
            return Some(("requests at once", limit, Duration::from_secs(1)));
        }
        let buckets = [("requests a minute", self.requests, 1.0), ("tokens a minute", self.tokens, n_tokens)];
        buckets.into_iter().find_map(|(what, bucket, wanted)| {
            let bucket = bucket?;
            let wait = bucket.wait_for(wanted);
            (!wait.is_zero()).then_some((what, bucket.per_min as u32, wait))
        })
    }
}

impl Limiter {
    fn keys(&self) -> MutexGuard<'_, HashMap<i64, Buckets>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request of `n_tokens` prompt tokens in, or says when to come again. A request of more tokens than a
    /// minute's worth is let in by a full bucket.
    ///
    /// # Errors
    /// The limit that was met; nothing was taken then.
    pub fn enter(
        &self,
        key_id: i64,
        limits: KeyLimits,
        n_tokens: u64,
        now: Instant,
    ) -> Result<Permit, Refusal> {
        let mut keys = self.keys();
        if keys.len() >= KEYS_MAX {
            keys.retain(|_, buckets| buckets.n_running > 0);
        }
        let buckets = keys.entry(key_id).or_default();
        buckets.requests = Bucket::renew(buckets.requests, limits.requests_per_min, now);
        buckets.tokens = Bucket::renew(buckets.tokens, limits.tokens_per_min, now);
        if let Some((what, limit, retry_after)) = buckets.obstacle(limits, n_tokens as f64) {
            return Err(Refusal { what, limit, retry_after, standing: buckets.standing() });
        }
        buckets.n_running += 1;
        if let Some(bucket) = &mut buckets.requests {
            bucket.level -= 1.0;
        }
        if let Some(bucket) = &mut buckets.tokens {
            bucket.level -= n_tokens as f64;
        }
        let standing = buckets.standing();
        drop(keys);
        Ok(Permit { limiter: self.clone(), key_id, standing })
    }
}

impl Permit {
    /// Takes generated tokens from the key's bucket, below zero too; a key without a limit has none to take from.
    pub fn take_tokens(&self, n_tokens: u64) {
        if let Some(bucket) = self.limiter.keys().get_mut(&self.key_id).and_then(|b| b.tokens.as_mut()) {
            bucket.level -= n_tokens as f64;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(buckets) = self.limiter.keys().get_mut(&self.key_id) {
            buckets.n_running = buckets.n_running.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: Option<u32>, tokens: Option<u32>, concurrency: Option<u32>) -> KeyLimits {
        KeyLimits { requests_per_min: requests, tokens_per_min: tokens, concurrency }
    }

    #[test]
    fn requests_come_back_with_time() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let limits = limits(Some(2), None, None);
        let enter = |seconds: u64| limiter.enter(1, limits, 5, start + Duration::from_secs(seconds));
        assert_eq!(enter(0).expect("first").standing.requests.expect("limited").remaining, 1);
        enter(0).expect("second");
        let refusal = enter(0).err().expect("third must wait");
        assert_eq!((refusal.what, refusal.retry_after), ("requests a minute", Duration::from_secs(30)));
        assert!(enter(29).is_err());
        enter(30).expect("half a minute gives one of two");
        assert!(enter(30).is_err());
        limiter.enter(2, limits, 5, start).expect("another key has its own bucket");
    }

    #[test]
    fn generated_tokens_make_a_debt_that_must_be_filled() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let limits = limits(None, Some(600), None);
        let permit = limiter.enter(1, limits, 100, start).expect("500 left");
        permit.take_tokens(560);
        let refusal = limiter.enter(1, limits, 100, start).err().expect("60 below zero");
        assert_eq!(refusal.retry_after, Duration::from_secs(16));
        assert_eq!(refusal.standing.tokens.expect("limited").remaining, 0);
        limiter.enter(1, limits, 100, start + Duration::from_secs(16)).expect("filled to 100");
        let huge = limiter.enter(1, limits, 10_000, start + Duration::from_secs(100));
        huge.expect("a full bucket lets one request larger than itself in");
    }

    #[test]
    fn a_dropped_permit_makes_room() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let limits = limits(None, None, Some(1));
        let permit = limiter.enter(1, limits, 1, now).expect("first");
        assert_eq!(limiter.enter(1, limits, 1, now).err().expect("second").what, "requests at once");
        drop(permit);
        limiter.enter(1, limits, 1, now).expect("room again");
    }
}
