//! What the machine's processors do while something is measured.

use std::{collections::HashMap, fmt::Write as _, fs, process, time::Instant};

use anyhow::Context as _;
use usher_tests::setting;

/// Clock ticks a second in `/proc` (`USER_HZ`), which is 100 on every Linux of today.
const TICKS: f64 = 100.0;

/// Process ids of the servers and of what is measured.
pub struct Processes {
    groups: Vec<(&'static str, u32)>,
}

/// Processor time that was used until a moment, in seconds.
pub struct Sample {
    taken: Instant,
    busy: f64,
    groups: Vec<f64>,
}

/// Processor time that was used between two moments, in seconds.
pub struct Usage {
    elapsed: f64,
    busy: f64,
    groups: Vec<(&'static str, f64)>,
}

impl Processes {
    /// The servers, which must run on this machine, this process, and `services`.
    pub fn new(services: &[(&'static str, u32)]) -> anyhow::Result<Self> {
        let mut groups = vec![
            ("PostgreSQL", listener(port_of("DATABASE_URL")?)?),
            ("RabbitMQ", listener(port_of("AMQP_URL")?)?),
            ("generator", process::id()),
        ];
        groups.extend_from_slice(services);
        Ok(Self { groups })
    }

    pub fn sample(&self) -> anyhow::Result<Sample> {
        let processes = processes()?;
        let roots: Vec<u32> = self.groups.iter().map(|&(_, id)| id).collect();
        let seconds = |root: u32| {
            let members = processes
                .iter()
                .filter(|&(&id, _)| belongs(&processes, &roots, id) == Some(root));
            members.map(|(_, process)| process.seconds).sum()
        };
        Ok(Sample {
            taken: Instant::now(),
            busy: busy()?,
            groups: roots.iter().map(|&root| seconds(root)).collect(),
        })
    }

    /// What was used since `start`.
    pub fn since(&self, start: &Sample) -> anyhow::Result<Usage> {
        let end = self.sample()?;
        let used = std::iter::zip(&end.groups, &start.groups).map(|(end, start)| end - start);
        let names = self.groups.iter().map(|&(name, _)| name);
        Ok(Usage {
            elapsed: (end.taken - start.taken).as_secs_f64(),
            busy: end.busy - start.busy,
            groups: names.zip(used).collect(),
        })
    }
}

impl Usage {
    /// Processor seconds of one group.
    pub fn seconds(&self, name: &str) -> f64 {
        let of_name = self.groups.iter().filter(|(group, _)| *group == name);
        of_name.map(|(_, seconds)| seconds).sum()
    }

    /// Shares of all processors, in percent; `rest` is everything that is not measured.
    pub fn shares(&self) -> String {
        let all = self.elapsed * processors();
        let mut text = String::new();
        for (name, seconds) in &self.groups {
            let _ = write!(text, "{name} {:.0} %, ", seconds / all * 100.0);
        }
        let known: f64 = self.groups.iter().map(|(_, seconds)| seconds).sum();
        let _ = write!(
            text,
            "rest {:.0} %",
            (self.busy - known).max(0.0) / all * 100.0
        );
        text
    }
}

/// How many processors there are.
pub fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

struct Process {
    parent: u32,
    /// Its own time and that of its children that have ended.
    seconds: f64,
}

/// The nearest of `roots` that a process is or descends from.
fn belongs(processes: &HashMap<u32, Process>, roots: &[u32], mut id: u32) -> Option<u32> {
    loop {
        if roots.contains(&id) {
            return Some(id);
        }
        id = processes.get(&id)?.parent;
    }
}

fn processes() -> anyhow::Result<HashMap<u32, Process>> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else {
            continue;
        };
        // proc_pid_stat(5): the name, in parentheses, is field 2.
        let (_, fields) = stat.rsplit_once(')').context("malformed stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |field: usize| -> anyhow::Result<f64> {
            Ok(fields.get(field - 3).context("short stat")?.parse()?)
        };
        let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
        let parent = fields.get(1).context("short stat")?.parse()?;
        let seconds = ticks / TICKS;
        processes.insert(id, Process { parent, seconds });
    }
    Ok(processes)
}

/// Seconds in which a processor did something, of all processors together.
fn busy() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("empty /proc/stat")?;
    let ticks: Result<Vec<f64>, _> = line.split_whitespace().skip(1).map(str::parse).collect();
    let ticks = ticks?;
    // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user.
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok((ticks.iter().take(8).sum::<f64>() - idle) / TICKS)
}

fn port_of(name: &str) -> anyhow::Result<u16> {
    let url = url::Url::parse(&setting(name)?)?;
    url.port().with_context(|| format!("{name} names no port"))
}

/// The process that listens on a TCP port.
fn listener(port: u16) -> anyhow::Result<u32> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // proc_pid_net(5): local address, remote address, state (0A: listening), …, inode.
            if let (Some(local), Some(&"0A"), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(9))
                && local.ends_with(&format!(":{port:04X}"))
            {
                sockets.push(format!("socket:[{inode}]"));
            }
        }
    }
    let holds = |id: &u32| {
        let files = fs::read_dir(format!("/proc/{id}/fd"));
        files.into_iter().flatten().flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| {
                sockets
                    .iter()
                    .any(|socket| target.as_os_str() == socket.as_str())
            })
        })
    };
    // Children of a server may hold its socket too; the server is the first of them.
    let holders = processes()?.into_keys().filter(holds);
    holders
        .min()
        .with_context(|| format!("no process of this machine listens on {port}, or it is hidden"))
}
