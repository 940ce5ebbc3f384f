use crate::database::{Database, receptionist};
use offhook_store::Page;

on_both![a_list_is_read_page_by_page_newest_first, a_page_is_never_larger_than_the_limit];

async fn a_list_is_read_page_by_page_newest_first(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    let add = async |name: &str| db.store.create_agent(&scope, &receptionist(name)).await.unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        add(name).await;
    }
    let mut page = Page::first(2);
    let mut pages = Vec::new();
    loop {
        let listed = db.store.agents(&scope, &page).await.unwrap();
        pages.push(listed.rows.iter().map(|agent| agent.name.clone()).collect::<String>());
        let Some(next) = listed.next else { break };
        add(&format!("added after {next}")).await;
        page = Page::after(next, 2);
    }
    assert_eq!(pages, ["ed", "cb", "a"]);
    let whole = db.store.agents(&scope, &Page::first(7)).await.unwrap();
    assert_eq!((whole.rows.len(), whole.next), (7, None), "a full page need not have a next");
}

async fn a_page_is_never_larger_than_the_limit(db: Database) {
    let (_, scope) = db.workspace("acme").await;
    for i in 0..3 {
        db.store.create_agent(&scope, &receptionist(&i.to_string())).await.unwrap();
    }
    assert_eq!(db.store.agents(&scope, &Page::first(0)).await.unwrap().rows.len(), 1);
    assert_eq!(db.store.agents(&scope, &Page::first(u32::MAX)).await.unwrap().rows.len(), 3);
    assert!(db.store.agents(&scope, &Page::after("agt_0", 5)).await.unwrap().rows.is_empty());
}
