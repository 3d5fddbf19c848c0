//! A transaction that gives its connection back clean, or not at all.

use std::{
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, SqlSafeStr, pool::PoolConnection, raw_sql,
};
use tokio::{runtime::Handle, time::timeout};

use super::{Scope, is_outage};

/// Longest that `BEGIN` may take on a connection that was idle, and again on a new one.
const BEGIN_LIMIT: Duration = Duration::from_secs(2);

/// Longest that a connection may take to roll back and answer a ping before it goes back to its pool.
const RETURN_LIMIT: Duration = Duration::from_secs(2);

/// A transaction, on a connection of its own from a pool. Begun by [`begin`].
///
/// Dropped without [`Self::commit`], it is rolled back in the background. A connection that does not
/// answer within two seconds, or whose `BEGIN`, `COMMIT` or `ROLLBACK` was not seen to succeed, is closed and
/// never returned to its pool: whoever gets a connection next finds no open transaction, no foreign scope and
/// no answers to somebody else's statements on it. (sqlx 0.9.0 returns one with an open transaction when a
/// future is dropped while it begins: transact-rs/sqlx issues 4385 and 4393. And it pings without a limit
/// before it returns one, so that connections that died silently would occupy the pool for good.)
///
/// For a part of it that may fail, send `SAVEPOINT`; sqlx's own nested transactions do not know of this one.
#[derive(Debug)]
pub struct Tx {
    /// Taken by `drop` alone.
    connection: Option<PoolConnection<Postgres>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A statement that begins or ends it is under way or has failed: what the database made of it is not
    /// known.
    Changing,
    /// Begun.
    Open,
    /// Committed or rolled back.
    Ended,
}

/// Begins a transaction in `scope`. This is the only way to begin one: without a scope, row-level
/// security shows no rows at all.
///
/// Idle connections are not tested before. If one turns out to be dead, all that are idle are closed, as
/// they are of one age, and the transaction begins on a new connection. All that takes ten seconds at most;
/// a statement takes as long as the `statement_timeout`, and without an end on a network that swallows
/// packets: see [`within`](super::within).
///
/// # Errors
/// If no connection is to be had in time or the database is away.
pub async fn begin(pool: &PgPool, scope: Scope) -> Result<Tx, sqlx::Error> {
    if let Some(connection) = pool.try_acquire() {
        match Tx::begin(connection, scope).await {
            Err(error) if is_outage(&error) => close_idle(pool),
            result => return result,
        }
    }
    Tx::begin(pool.acquire().await?, scope).await
}

fn close_idle(pool: &PgPool) {
    while let Some(connection) = pool.try_acquire() {
        drop(connection.detach());
    }
}

impl Tx {
    async fn begin(
        connection: PoolConnection<Postgres>,
        scope: Scope,
    ) -> Result<Self, sqlx::Error> {
        // One round trip instead of two. The only thing put into the text is a UUID.
        let statement = match scope {
            Scope::Organization(organization_id) => {
                format!("BEGIN; SET LOCAL usher.organization_id = '{organization_id}'")
            }
            Scope::Platform => "BEGIN; SET LOCAL usher.scope = 'platform'".to_owned(),
        };
        // Exists before the statement is sent: however this future ends, `drop` decides about the connection.
        let mut tx = Self {
            connection: Some(connection),
            state: State::Changing,
        };
        let begun = tx.change_to(State::Open, AssertSqlSafe(statement));
        timeout(BEGIN_LIMIT, begun)
            .await
            .map_err(|_| timed_out())??;
        Ok(tx)
    }

    /// Makes the changes durable and visible.
    ///
    /// # Errors
    /// If the database refuses. If it is away, it is not known whether the changes were made.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.change_to(State::Ended, "COMMIT").await
    }

    /// Undoes the changes, and returns when that is done. Dropping does the same in the background.
    ///
    /// # Errors
    /// If the database is away; it undoes the changes all the same.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.change_to(State::Ended, "ROLLBACK").await
    }

    async fn change_to(
        &mut self,
        state: State,
        statement: impl SqlSafeStr,
    ) -> Result<(), sqlx::Error> {
        self.state = State::Changing;
        raw_sql(statement).execute(&mut **self).await?;
        self.state = state;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let (Some(mut connection), state) = (self.connection.take(), self.state) else {
            return;
        };
        let (State::Open | State::Ended, Ok(runtime)) = (state, Handle::try_current()) else {
            close(connection);
            return;
        };
        runtime.spawn(async move {
            let clean = timeout(RETURN_LIMIT, async {
                if state == State::Open {
                    raw_sql("ROLLBACK").execute(&mut *connection).await?;
                }
                // Pings once more. Dropped before its end, it closes the connection.
                connection.return_to_pool().await;
                Ok::<_, sqlx::Error>(())
            });
            if !matches!(clean.await, Ok(Ok(()))) {
                close(connection);
            }
        });
    }
}

/// Closes a connection without a word to the server, which may not answer, and frees its place in the pool.
fn close(mut connection: PoolConnection<Postgres>) {
    drop(connection.return_to_pool());
}

impl Deref for Tx {
    type Target = PgConnection;

    #[expect(
        clippy::expect_used,
        reason = "nobody holds a transaction after its drop"
    )]
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("taken by `drop` alone")
    }
}

impl DerefMut for Tx {
    #[expect(
        clippy::expect_used,
        reason = "nobody holds a transaction after its drop"
    )]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("taken by `drop` alone")
    }
}

pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(
        io::ErrorKind::TimedOut,
        "the database did not answer in time",
    ))
}
