//! Lanes: the connections that subscriptions share.
//!
//! Invariant: no connection carries more than [`STREAMS`] subscriptions. A server takes some hundred streams on one
//! connection of HTTP/2, and what is beyond would wait for ever; and a subscription that is not read holds
//! up only those on its own lane, never the calls that list and describe.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_kinesis::config::SharedHttpClient;

use super::session;

/// Subscriptions on a connection: half of what servers commonly allow.
const STREAMS: usize = 50;

/// All lanes of a stream.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<Vec<Lane>>);

#[derive(Debug)]
struct Lane {
    http: SharedHttpClient,
    places: Arc<()>,
}

/// A place on a lane, for as long as it is held.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held, and counted")] Arc<()>);

impl Lanes {
    /// Returns what to call with, and the place that is to be held for as long as the subscription lasts.
    pub(super) fn place(&self) -> (SharedHttpClient, Place) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |lane: &&Lane| Arc::strong_count(&lane.places) <= STREAMS;
        if let Some(lane) = lanes.iter().find(has_room) {
            return (lane.http.clone(), Place(Arc::clone(&lane.places)));
        }
        let (http, places) = (session::http_client(), Arc::new(()));
        lanes.push(Lane { http: http.clone(), places: Arc::clone(&places) });
        (http, Place(places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_full_is_followed_by_another_and_places_are_used_again() {
        let lanes = Lanes::default();
        let count = |lanes: &Lanes| lanes.0.lock().unwrap().len();
        let mut places: Vec<_> = (0..STREAMS).map(|_| lanes.place()).collect();
        assert_eq!(count(&lanes), 1);
        places.extend((0..STREAMS).map(|_| lanes.place()));
        assert_eq!(count(&lanes), 2);
        places.truncate(STREAMS);
        places.push(lanes.place());
        places.remove(0);
        places.push(lanes.place());
        assert_eq!(count(&lanes), 2);
    }
}
