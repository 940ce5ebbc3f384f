//! A node's housekeeping.

use crate::house::House;
use offhook_server::call::registry::Letter;
use offhook_server::node;
use offhook_store::Node;
use tokio::sync::mpsc::error::TryRecvError;

on_both!(a_call_that_another_node_has_taken_is_let_go);

async fn a_call_that_another_node_has_taken_is_let_go(house: House) {
    let (ours, lost) = (house.call().await, house.call().await);
    let (mut to_ours, mut to_lost) = (house.drive(ours.call()), house.drive(lost.call()));
    let store = &house.app.store;
    let before = store.call(ours.scope(), ours.call()).await.unwrap().lease_expires_at_us;
    store.release_call(&lost).await.unwrap();
    let other = Node::new("twin".into(), 30_000, &*house.app.environment);
    store.claim_call(lost.scope(), lost.call(), &other).await.unwrap();

    node::renew(&house.app).await.unwrap();
    assert!(matches!(to_lost.try_recv(), Ok(Letter::LetGo)));
    assert!(matches!(to_ours.try_recv(), Err(TryRecvError::Empty)));
    assert!(store.call(ours.scope(), ours.call()).await.unwrap().lease_expires_at_us > before);
}
