//! The open connections of agents, so that those of one agent can be closed.
//!
//! An agent that was revoked is refused call by call; its connections would still take up places. Each
//! connection has an entry here from its handshake until it is dropped. A request costs an entry nothing but a
//! look at one flag whenever bytes are read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use crate::domain::id::AgentId;

/// All open connections of agents.
#[derive(Debug, Default)]
pub struct Connections(Mutex<HashMap<AgentId, Vec<Arc<Line>>>>);

#[derive(Debug, Default)]
struct Line {
    closed: AtomicBool,
    reader: AtomicWaker,
}

/// A connection's entry. Dropping it takes the connection off the list.
#[derive(Debug)]
pub(super) struct Entry {
    connections: Arc<Connections>,
    agent: AgentId,
    line: Arc<Line>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Vec<Arc<Line>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, agent: AgentId) -> Entry {
        let line = Arc::new(Line::default());
        self.lock().entry(agent).or_default().push(Arc::clone(&line));
        Entry {
            connections: Arc::clone(self),
            agent,
            line,
        }
    }

    /// Closes the connections that an agent has now; says how many.
    pub fn close(&self, agent: AgentId) -> usize {
        let lines = self.lock().get(&agent).cloned().unwrap_or_default();
        for line in &lines {
            line.closed.store(true, Ordering::Release);
            line.reader.wake();
        }
        lines.len()
    }

    /// How many agents have a connection.
    pub fn agents(&self) -> usize {
        self.lock().len()
    }
}

impl Entry {
    /// Whether the connection is to be closed. Otherwise `reader` is woken when it is.
    pub(super) fn closed(&self, reader: &Waker) -> bool {
        // In this order: a close in between finds the waker.
        self.line.reader.register(reader);
        self.line.closed.load(Ordering::Acquire)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut agents = self.connections.lock();
        if let Some(lines) = agents.get_mut(&self.agent) {
            lines.retain(|line| !Arc::ptr_eq(line, &self.line));
            if lines.is_empty() {
                agents.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    #[test]
    fn closing_reaches_all_of_one_agent_and_entries_leave_nothing_behind() {
        let (one, other) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let connections = Arc::new(Connections::default());
        let (first, second) = (connections.enter(one), connections.enter(one));
        let bystander = connections.enter(other);
        assert_eq!((connections.agents(), connections.close(one)), (2, 2));
        let waker = Waker::noop();
        assert!(first.closed(waker) && second.closed(waker) && !bystander.closed(waker));
        drop((first, second));
        assert_eq!((connections.agents(), connections.close(one)), (1, 0));
        // A new connection of a closed agent is a new one.
        assert!(!connections.enter(one).closed(waker));
        drop(bystander);
        assert_eq!(connections.agents(), 0);
    }
}
