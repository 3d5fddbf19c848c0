//! Hashing of passwords, apart from other work: on threads of its own, with a bounded queue.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
};

use secrecy::SecretString;
use tokio::sync::oneshot;
use usher_runtime::error::CommonError;
use uuid::Uuid;

use crate::{
    domain::password::{Hasher, PasswordPolicy},
    error::Error,
};

/// Calls that may be hashing or wait for it, for each hash that is worked on. The last one waits for two seconds or so
/// if each thread has a processor to itself, and longer if they share them or other work goes first: for up to ten
/// seconds under load. More would only pile up, and take the places of calls that hash nothing.
const PLACES_PER_HASH: usize = 64;

/// How much less the threads that hash are worth than others: `nice`. Other calls get a processor at once, and
/// a thread that hashes still gets a quarter of one that another thread wants too.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// What a thread that hashes does.
type Job = Box<dyn FnOnce(&mut Hasher) + Send>;

/// Hashes and checks passwords. Clones share the limits.
#[derive(Clone)]
pub struct Passwords {
    /// What a new password must be.
    policy: PasswordPolicy,
    queue: Arc<Queue>,
    /// The threads that hash; they end with the last clone. Their number bounds the processors and the memory (19
    /// MiB each) that hashing takes.
    threads: mpsc::Sender<Job>,
    /// What is checked where nobody has the email, so that the answer takes as long.
    decoy_hash: Arc<OnceLock<String>>,
}

impl Passwords {
    /// Hashes up to `max_concurrent` passwords at the same time.
    ///
    /// # Errors
    /// If the operating system gives no threads.
    pub fn new(policy: PasswordPolicy, max_concurrent: usize) -> io::Result<Self> {
        let (threads, jobs) = mpsc::channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..max_concurrent {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name("hashing".to_owned())
                .spawn(move || work(&jobs))?;
        }
        Ok(Self {
            policy,
            queue: Arc::new(Queue {
                places: max_concurrent * PLACES_PER_HASH,
                taken: Mutex::default(),
            }),
            threads,
            decoy_hash: Arc::default(),
        })
    }

    /// Checks a new password against the policy and what is known of the person, and hashes it.
    ///
    /// # Errors
    /// If a rule refuses it, or too many calls wait already.
    pub async fn hash_new(
        &self,
        organization_id: Uuid,
        password: SecretString,
        personal: Vec<String>,
    ) -> Result<String, Error> {
        let policy = self.policy;
        self.run(organization_id, move |hasher| {
            let personal: Vec<&str> = personal.iter().map(String::as_str).collect();
            policy.check(&password, &personal)?;
            Ok(hasher.hash(&password)?)
        })
        .await
    }

    /// Whether `password` is the one that `hash` was made of. Takes as long without a hash.
    ///
    /// # Errors
    /// If the hash is malformed, or too many calls wait already.
    pub async fn verify(
        &self,
        organization_id: Uuid,
        password: SecretString,
        hash: Option<String>,
    ) -> Result<bool, Error> {
        let decoy_hash = Arc::clone(&self.decoy_hash);
        self.run(organization_id, move |hasher| {
            if let Some(hash) = hash {
                return Ok(hasher.verify(&password, &hash)?);
            }
            let decoy = if let Some(decoy) = decoy_hash.get() {
                decoy
            } else {
                let decoy = hasher.hash(&SecretString::from(Uuid::now_v7().to_string()))?;
                decoy_hash.get_or_init(|| decoy)
            };
            hasher.verify(&password, decoy)?;
            Ok(false)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        organization_id: Uuid,
        work: impl FnOnce(&mut Hasher) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let place = self.queue.enter(organization_id).ok_or(Error::Overloaded)?;
        let (sender, result) = oneshot::channel();
        // The place goes with the work: a caller that leaves does not let another one in before it ends.
        let job: Job = Box::new(move |hasher| {
            // Nobody waits for the result: the time of the call is over.
            if sender.is_closed() {
                return;
            }
            let result = work(hasher);
            drop(place);
            let _ = sender.send(result);
        });
        let ended = || CommonError::Internal("a thread that hashes has ended".to_owned());
        self.threads.send(job).map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

/// Works on jobs until nobody can send any more.
fn work(jobs: &Mutex<mpsc::Receiver<Job>>) {
    // Linux has a priority for each thread; elsewhere this would concern the whole process. Hashing works without it.
    #[cfg(target_os = "linux")]
    if let Ok(priority) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, priority + NICE);
    }
    let mut hasher = Hasher::default();
    loop {
        let job = lock(jobs).recv();
        let Ok(job) = job else { return };
        // A panic is logged, and its caller told, who waits in vain.
        if catch_unwind(AssertUnwindSafe(|| job(&mut hasher))).is_err() {
            hasher = Hasher::default();
        }
    }
}

/// Who hashes or waits for it.
struct Queue {
    places: usize,
    /// How many places the calls of each organization take.
    taken: Mutex<HashMap<Uuid, usize>>,
}

impl Queue {
    /// Takes a place; none if there is no more, or if the organization has half of them already: the calls of
    /// one do not keep out those of all others.
    fn enter(self: &Arc<Self>, organization_id: Uuid) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let all: usize = taken.values().sum();
        let own = taken.entry(organization_id).or_default();
        if all >= self.places || *own >= self.places.div_ceil(2) {
            return None;
        }
        *own += 1;
        Some(Place {
            queue: Arc::clone(self),
            organization_id,
        })
    }
}

/// A place in the queue; free again when dropped.
struct Place {
    queue: Arc<Queue>,
    organization_id: Uuid,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.queue.taken);
        if let Some(own) = taken.get_mut(&self.organization_id) {
            *own -= 1;
        }
        // Only those that have a place are known.
        taken.retain(|_, own| *own > 0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<argon2::password_hash::Error> for Error {
    fn from(error: argon2::password_hash::Error) -> Self {
        CommonError::Internal(format!("hashing: {error}")).into()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(PasswordPolicy { min_length: 15 }, 1).unwrap()
    }

    #[tokio::test]
    async fn a_panic_ends_one_call_alone() {
        let passwords = passwords();
        let panicked: Result<(), _> = passwords.run(Uuid::nil(), |_| panic!("a test")).await;
        assert!(matches!(
            panicked,
            Err(Error::Common(CommonError::Internal(_)))
        ));
        assert_eq!(passwords.run(Uuid::nil(), |_| Ok(1)).await.unwrap(), 1);
        assert!(lock(&passwords.queue.taken).is_empty());
    }

    #[tokio::test]
    async fn nothing_is_hashed_for_a_caller_who_has_gone() {
        let passwords = passwords();
        let (release, held) = mpsc::channel();
        let busy = passwords.run(Uuid::nil(), move |_| {
            held.recv().unwrap();
            Ok(())
        });
        let was_hashed = Arc::new(AtomicBool::new(false));
        let hashed = Arc::clone(&was_hashed);
        let gone = passwords.run(Uuid::nil(), move |_| {
            hashed.store(true, Ordering::Relaxed);
            Ok(())
        });
        let (ended, ()) = tokio::join!(busy, async {
            // Puts it into the queue, and gives it up.
            assert!(timeout(Duration::ZERO, gone).await.is_err());
            release.send(()).unwrap();
        });
        ended.unwrap();
        passwords.run(Uuid::nil(), |_| Ok(())).await.unwrap();
        assert!(!was_hashed.load(Ordering::Relaxed));
        assert!(lock(&passwords.queue.taken).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn hashing_gives_way_to_other_work() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let passwords = passwords();
        let hashing = passwords.run(Uuid::nil(), move |_| Ok(priority()));
        assert_eq!(hashing.await.unwrap(), (priority() + NICE).min(19));
    }
}
