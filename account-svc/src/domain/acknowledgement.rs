//! What a caller sends back to go on in spite of a warning of duplicates.
//!
//! It holds a digest of each candidate that was shown. So it stays valid when one of them is not found any more,
//! and when their scores change, but not when there is another one.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use uuid::Uuid;

/// Most characters of an acknowledgement: of 40 candidates, and short enough for the facts of an error.
pub const MAX_LENGTH: usize = 256;

/// Bytes of each digest. It is a statement of the caller and not a secret: it need not resist anybody, and takes a
/// new candidate for one that was shown once in a hundred million times.
const DIGEST: usize = 4;

/// The acknowledgement of `candidates`, accounts of one organization. Empty without any.
#[must_use]
pub fn of(organization_id: Uuid, candidates: impl IntoIterator<Item = Uuid>) -> String {
    let mut digests: Vec<[u8; DIGEST]> = candidates
        .into_iter()
        .map(|account_id| digest(organization_id, account_id))
        .collect();
    digests.sort_unstable();
    BASE64URL_NOPAD.encode(digests.as_flattened())
}

/// Whether `acknowledgement` is one of all `candidates`, and perhaps of others.
#[must_use]
pub fn covers(
    acknowledgement: &str,
    organization_id: Uuid,
    candidates: impl IntoIterator<Item = Uuid>,
) -> bool {
    let Ok(shown) = BASE64URL_NOPAD.decode(acknowledgement.as_bytes()) else {
        return false;
    };
    let (shown, _) = shown.as_chunks::<DIGEST>();
    candidates
        .into_iter()
        .all(|account_id| shown.contains(&digest(organization_id, account_id)))
}

fn digest(organization_id: Uuid, account_id: Uuid) -> [u8; DIGEST] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"usher duplicate acknowledgement v2");
    context.update(organization_id.as_bytes());
    context.update(account_id.as_bytes());
    let mut short = [0; DIGEST];
    short.copy_from_slice(&context.finish().as_ref()[..DIGEST]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_what_was_shown_and_nothing_else() {
        let [organization, first, second, third] = [(); 4].map(|()| Uuid::now_v7());
        let acknowledgement = of(organization, [first, second]);
        assert_eq!(acknowledgement, of(organization, [second, first]));
        for fewer in [&[][..], &[first], &[second], &[second, first]] {
            let candidates = fewer.iter().copied();
            assert!(
                covers(&acknowledgement, organization, candidates),
                "{fewer:?}"
            );
        }
        assert!(!covers(
            &acknowledgement,
            organization,
            [first, second, third]
        ));
        assert!(!covers(&acknowledgement, Uuid::now_v7(), [first]));
        assert_eq!(of(organization, []), "");
        for malformed in ["", "a", "not base64!", &acknowledgement[1..]] {
            assert!(
                !covers(malformed, organization, [first, second]),
                "{malformed}"
            );
        }
    }

    #[test]
    fn that_of_forty_candidates_can_be_sent_back() {
        let candidates = (0..40).map(|_| Uuid::now_v7());
        assert!(of(Uuid::now_v7(), candidates).len() <= MAX_LENGTH);
    }
}
