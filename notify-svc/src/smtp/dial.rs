//! The way to a host with several addresses: they are tried side by side (RFC 8305), so that one that does not answer
//! costs a quarter of a second.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};

/// RFC 8305, section 5: how long one attempt goes on alone before the next one begins.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first address that answers. Each has `limit`; looking the name up and all attempts together have
/// twice that.
pub async fn dial(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let attempts = async {
        let addresses = lookup_host((host, port)).await?.collect();
        race(interleaved(addresses), limit, TcpStream::connect).await
    };
    let stream = timeout(limit * 2, attempts)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // Without this each email waits 40 ms for a delayed acknowledgement.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Alternates between the families, the resolver's first choice first (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else {
        return addresses;
    };
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let length = preferred.len().max(other.len());
    (0..length)
        .flat_map(|index| [preferred.get(index).copied(), other.get(index).copied()])
        .flatten()
        .collect()
}

/// Begins an attempt when the one before has failed or has had its head start. The error of the last one, if all fail.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    limit: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    loop {
        match waiting.next() {
            Some(address) => attempts.push(timeout(limit, connect(address))),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            Some(ended) = attempts.next() => match ended {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, net::Ipv4Addr, sync::Mutex};

    use tokio::time::Instant;

    use super::*;

    /// What becomes of an attempt.
    #[derive(Clone, Copy)]
    enum Attempt {
        Connects,
        Fails,
        HearsNothing,
    }

    /// Races attempts: which one won, which were begun, and how long it took.
    async fn raced(attempts: &[Attempt], limit: Duration) -> (io::Result<u8>, Vec<u8>, Duration) {
        let started = Instant::now();
        let begun = Mutex::new(Vec::new());
        let count = u8::try_from(attempts.len()).unwrap();
        let addresses = (0..count)
            .map(|index| (Ipv4Addr::new(192, 0, 2, index), 25).into())
            .collect();
        let result = race(addresses, limit, async |address: SocketAddr| {
            let SocketAddr::V4(address) = address else {
                panic!("another address")
            };
            let index = address.ip().octets()[3];
            begun.lock().unwrap().push(index);
            match attempts[usize::from(index)] {
                Attempt::Connects => Ok(index),
                Attempt::Fails => Err(io::ErrorKind::ConnectionRefused.into()),
                Attempt::HearsNothing => pending().await,
            }
        })
        .await;
        (result, begun.into_inner().unwrap(), started.elapsed())
    }

    #[tokio::test]
    async fn the_first_to_answer_wins() {
        use Attempt::{Connects, Fails, HearsNothing};
        let limit = Duration::from_mins(1);
        let (won, begun, _) = raced(&[Connects, Connects], limit).await;
        assert_eq!((won.unwrap(), begun), (0, vec![0]), "nobody else is asked");
        let (won, _, after) = raced(&[HearsNothing, HearsNothing, Connects], limit).await;
        assert_eq!(won.unwrap(), 2);
        assert!(after >= HEAD_START * 2 && after < limit / 2, "{after:?}");
        let many = [[Fails; 50].as_slice(), &[Connects]].concat();
        let (won, _, after) = raced(&many, limit).await;
        assert_eq!(won.unwrap(), 50);
        assert!(
            after < HEAD_START * 10,
            "at once after a failure: {after:?}"
        );
    }

    #[tokio::test]
    async fn all_can_fail() {
        use Attempt::{Fails, HearsNothing};
        let limit = Duration::from_millis(300);
        let (result, ..) = raced(&[HearsNothing, Fails], Duration::from_millis(1)).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let (result, _, after) = raced(&[HearsNothing, HearsNothing], limit).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(after >= HEAD_START + limit, "each has its time: {after:?}");
        let (result, ..) = raced(&[], limit).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn families_alternate() {
        let [a, b, c, x] = [
            "[2001:db8::1]:25",
            "[2001:db8::2]:25",
            "[2001:db8::3]:25",
            "192.0.2.1:25",
        ]
        .map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(interleaved(vec![a, b, c, x]), [a, x, b, c]);
        assert_eq!(interleaved(vec![x, a, b]), [x, a, b]);
        assert_eq!(interleaved(Vec::new()), []);
    }
}
