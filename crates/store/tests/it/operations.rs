use crate::database::{Database, Tenant, hours, node, number, twilio};
use offhook_core::entity::{
    NumberSource, NumberStatus, Operation, OperationKind, OperationLine, OperationStatus, OperationStep,
};
use offhook_core::provisioning::{Answer, Provisioning, Settings, Task, There};
use offhook_store::{
    ConnectionSpec, LineEnd, LineNumber, NewLine, NewOperation, NumberSpec, OperationLease, Page, Progress,
    StoreError,
};
use sea_orm::ConnectionTrait;

on_both![
    a_purchase_takes_its_number_before_it_is_made,
    what_led_there_before_is_kept_as_soon_as_it_is_known,
    a_number_has_one_operation_at_a_time,
    an_operation_that_came_to_nothing_takes_its_number_along,
    what_a_dead_process_was_doing_is_taken_up_by_one_other,
    a_process_that_lost_an_operation_writes_nothing_of_it,
    an_agent_that_stands_still_has_inactive_lines,
    a_connection_goes_with_the_operation_that_removes_it,
    a_connection_stays_with_a_number_that_was_added_meanwhile,
    an_account_stays_while_its_numbers_lead_here,
    a_number_is_held_once_for_each_account,
    a_number_that_leads_elsewhere_is_in_error_until_it_is_back,
    numbers_are_due_for_a_look_once,
    what_cannot_be_read_keeps_nothing_else_from_going_on,
];

/// Longer than a lease of [`node`].
const LEASE_OVER_MS: i64 = 20_000;

fn settings(voice: &str) -> Settings {
    Settings([("voice_url".to_owned(), Some(voice.to_owned()))].into())
}

fn there(voice: &str) -> There {
    There { id: "PN1".into(), capabilities: vec![], settings: settings(voice) }
}

fn new_number(tenant: &Tenant, e164: &str) -> LineNumber {
    LineNumber::New(Box::new(number(&tenant.connection, &tenant.agent, e164)), NumberSource::Managed)
}

fn known(tenant: &Tenant) -> LineNumber {
    LineNumber::Known(tenant.number.id.clone())
}

async fn begin(
    db: &Database,
    tenant: &Tenant,
    kind: OperationKind,
    number: LineNumber,
    task: Task,
) -> Result<(Operation, OperationLease), StoreError> {
    let lines = vec![NewLine { number, machine: Provisioning::new(task) }];
    let new = NewOperation { kind, agent: None, connection: None, lines };
    db.store.begin_operation(&tenant.scope, &new, &node("a")).await
}

async fn take_over(db: &Database, tenant: &Tenant) -> (Operation, OperationLease) {
    let task = Task::TakeOver { previous: None };
    begin(db, tenant, OperationKind::TakeBack, known(tenant), task).await.unwrap()
}

/// Tells the only line of an operation these answers, and stores it.
async fn tell(
    db: &Database,
    (operation, lease): &(Operation, OperationLease),
    answers: Vec<Answer>,
) -> OperationLine {
    let mut line = operation.lines[0].clone();
    for answer in answers {
        line.machine.ask();
        line.machine.told(answer);
    }
    let progress = Progress { line: Some((0, &line)), ..Progress::default() };
    db.store.save_operation(lease, &progress).await.unwrap();
    line
}

async fn end(
    db: &Database,
    lease: &OperationLease,
    line: &OperationLine,
    end: LineEnd,
    status: OperationStatus,
) {
    let ended = Some((status, (status == OperationStatus::Failed).then(|| "no longer available".into())));
    let progress = Progress { line: Some((0, line)), end: Some(end), ended, ..Progress::default() };
    db.store.save_operation(lease, &progress).await.unwrap();
}

fn leads_here() -> LineEnd {
    LineEnd::Stays { leads_here: Some(true), capabilities: None, fault: None }
}

async fn a_purchase_takes_its_number_before_it_is_made(db: Database) {
    let tenant = db.tenant("acme").await;
    let (operation, lease) =
        begin(&db, &tenant, OperationKind::Buy, new_number(&tenant, "+14155550177"), Task::Buy)
            .await
            .unwrap();
    let row = db.store.number(&tenant.scope, &operation.lines[0].number).await.unwrap();
    assert_eq!((row.source, row.status), (NumberSource::Managed, NumberStatus::Inactive));
    assert_eq!(
        (row.status_reason.as_deref(), &row.operation),
        (Some("it is being set up"), &Some(operation.id.clone()))
    );
    let second =
        begin(&db, &tenant, OperationKind::Buy, new_number(&tenant, "+14155550177"), Task::Buy).await;
    assert!(matches!(second, Err(StoreError::Conflict { .. })), "{second:?}");
    assert_eq!(
        db.store.operations(&tenant.scope, None, &Page::first(10)).await.unwrap().rows,
        std::slice::from_ref(&operation)
    );

    let ours = vec![Answer::Looked(None), Answer::Prepared(settings("https://ours"))];
    let line = tell(&db, &(operation.clone(), lease.clone()), ours).await;
    end(&db, &lease, &line, leads_here(), OperationStatus::Done).await;
    let row = db.store.number(&tenant.scope, &row.id).await.unwrap();
    assert_eq!((row.status, row.operation), (NumberStatus::Active, None));
    let route = row.route.unwrap();
    assert_eq!((route.ours, route.previous.get("voice_url")), (settings("https://ours"), None));
    let ended = db.store.operation(&tenant.scope, &operation.id).await.unwrap();
    assert!(ended.status == OperationStatus::Done && ended.ended_at_us.is_some(), "{ended:?}");
}

async fn what_led_there_before_is_kept_as_soon_as_it_is_known(db: Database) {
    let tenant = db.tenant("acme").await;
    let begun = take_over(&db, &tenant).await;
    assert_eq!(db.store.number(&tenant.scope, &tenant.number.id).await.unwrap().route, None);
    let found = vec![Answer::Looked(Some(there("https://old"))), Answer::Prepared(settings("https://ours"))];
    tell(&db, &begun, found).await;
    let route = db.store.number(&tenant.scope, &tenant.number.id).await.unwrap().route.unwrap();
    assert_eq!((route.ours, route.previous), (settings("https://ours"), settings("https://old")));
    assert!(!route.leads_here, "not before it was done");
    let step = OperationStep {
        at_us: 1,
        ended_at_us: 2,
        e164: Some(tenant.number.e164.clone()),
        what: "Looked at the number".into(),
        error: None,
    };
    for _ in 0..2 {
        let progress = Progress { steps: std::slice::from_ref(&step), ..Progress::default() };
        db.store.save_operation(&begun.1, &progress).await.unwrap();
    }
    let steps = db.store.operation_steps(&tenant.scope, &begun.0.id).await.unwrap();
    assert_eq!(steps, [step.clone(), step]);
}

async fn a_number_has_one_operation_at_a_time(db: Database) {
    let tenant = db.tenant("acme").await;
    let (first, lease) = take_over(&db, &tenant).await;
    let second =
        begin(&db, &tenant, OperationKind::Release, known(&tenant), Task::Release).await.unwrap_err();
    assert_eq!(second.to_string(), format!("this phone number is taken: {} is at work on it", first.id));
    let error = db.store.delete_number(&tenant.scope, &tenant.number.id).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
    // What does not concern the carrier can be changed meanwhile, and takes nothing back.
    let found = vec![Answer::Looked(Some(there("https://old"))), Answer::Prepared(settings("https://ours"))];
    let line = tell(&db, &(first, lease.clone()), found).await;
    let spec =
        NumberSpec { name: "desk".into(), ..number(&tenant.connection, &tenant.agent, "+14155550100") };
    db.store.replace_number(&tenant.scope, &tenant.number.id, 1, &spec).await.unwrap();
    end(&db, &lease, &line, leads_here(), OperationStatus::Done).await;
    let row = db.store.number(&tenant.scope, &tenant.number.id).await.unwrap();
    assert!(row.name == "desk" && row.route.is_some_and(|route| route.leads_here));
    begin(&db, &tenant, OperationKind::Release, known(&tenant), Task::Release).await.unwrap();
}

async fn an_operation_that_came_to_nothing_takes_its_number_along(db: Database) {
    let tenant = db.tenant("acme").await;
    let (operation, lease) =
        begin(&db, &tenant, OperationKind::Buy, new_number(&tenant, "+14155550177"), Task::Buy)
            .await
            .unwrap();
    end(&db, &lease, &operation.lines[0], LineEnd::Removed, OperationStatus::Failed).await;
    let gone = db.store.number(&tenant.scope, &operation.lines[0].number).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    let ended = db.store.operation(&tenant.scope, &operation.id).await.unwrap();
    assert_eq!(
        (ended.status, ended.reason.as_deref()),
        (OperationStatus::Failed, Some("no longer available"))
    );
    begin(&db, &tenant, OperationKind::Buy, new_number(&tenant, "+14155550177"), Task::Buy).await.unwrap();
}

async fn what_a_dead_process_was_doing_is_taken_up_by_one_other(db: Database) {
    let tenant = db.tenant("acme").await;
    db.store.node_seen(&node("a")).await.unwrap();
    let (operation, _) = take_over(&db, &tenant).await;
    let claim = async |of: &str| {
        let claimed = db.store.claim_operations(&node(of), 10).await.unwrap();
        claimed.into_iter().map(|(operation, _)| operation).collect::<Vec<_>>()
    };
    assert_eq!(claim("b").await, [], "its process lives");
    assert_eq!(claim("a").await, [], "and goes on with it");
    let next = offhook_store::Node { incarnation: "a 2".into(), ..node("a") };
    assert!(db.store.claim_operations(&next, 10).await.unwrap().is_empty(), "it was just seen");
    db.clock.advance_ms(4_000);
    let claimed = db.store.claim_operations(&next, 10).await.unwrap();
    assert_eq!(claimed.len(), 1, "the next of its name need not wait for the lease");
    assert_eq!(claim("b").await, []);
    db.clock.advance_ms(LEASE_OVER_MS);
    assert_eq!(claim("b").await, [operation]);
}

async fn a_process_that_lost_an_operation_writes_nothing_of_it(db: Database) {
    let tenant = db.tenant("acme").await;
    let (operation, lease) = take_over(&db, &tenant).await;
    db.store.hold_operation(&lease).await.unwrap();
    db.clock.advance_ms(LEASE_OVER_MS);
    let claimed = db.store.claim_operations(&node("b"), 10).await.unwrap();
    let mut line = operation.lines[0].clone();
    line.machine.ask();
    line.machine.told(Answer::Looked(None));
    let late = Progress { line: Some((0, &line)), ..Progress::default() };
    let refused = db.store.save_operation(&lease, &late).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(db.store.operation(&tenant.scope, &operation.id).await.unwrap(), operation);
    db.store.save_operation(&claimed[0].1, &late).await.unwrap();
    end(&db, &claimed[0].1, &line, leads_here(), OperationStatus::Done).await;
    let over = db.store.hold_operation(&claimed[0].1).await;
    assert!(matches!(over, Err(StoreError::Conflict { .. })), "what has ended is nobody's: {over:?}");
}

async fn an_agent_that_stands_still_has_inactive_lines(db: Database) {
    let tenant = db.tenant("acme").await;
    let bare = NumberSpec { forward_to: None, ..number(&tenant.connection, &tenant.agent, "+14155550101") };
    let bare = db.store.create_number(&tenant.scope, &bare).await.unwrap();
    let turn = async |kind| {
        let agent = Some(tenant.agent.id.clone());
        let new = NewOperation { kind, agent, connection: None, lines: vec![] };
        let (operation, lease) = db.store.begin_operation(&tenant.scope, &new, &node("a")).await.unwrap();
        let ended = Some((OperationStatus::Done, None));
        db.store.save_operation(&lease, &Progress { ended, ..Progress::default() }).await.unwrap();
        let of_agent =
            db.store.operations(&tenant.scope, Some(&tenant.agent.id), &Page::first(1)).await.unwrap();
        assert_eq!(of_agent.rows[0].id, operation.id);
    };
    turn(OperationKind::Stop).await;
    assert!(!db.store.agent(&tenant.scope, &tenant.agent.id).await.unwrap().running);
    let row = db.store.number(&tenant.scope, &bare.id).await.unwrap();
    assert_eq!(
        (row.status, row.status_reason.as_deref()),
        (NumberStatus::Inactive, Some("its agent `reception` is stopped"))
    );
    let forwarding = db.store.number(&tenant.scope, &tenant.number.id).await.unwrap();
    assert_eq!(forwarding.status, NumberStatus::Active, "a line that forwards goes on");
    assert_eq!(db.store.numbers_of_agent(&tenant.scope, &tenant.agent.id).await.unwrap().len(), 2);
    turn(OperationKind::Start).await;
    assert!(db.store.agent(&tenant.scope, &tenant.agent.id).await.unwrap().running);
    assert_eq!(db.store.number(&tenant.scope, &bare.id).await.unwrap().status, NumberStatus::Active);
}

async fn a_connection_goes_with_the_operation_that_removes_it(db: Database) {
    let tenant = db.tenant("acme").await;
    let sibling = db.store.create_workspace(&tenant.scope, &hours("second")).await.unwrap();
    let sibling = db.tenant_in(sibling, "+14155550101").await;
    let theirs = number(&tenant.connection, &sibling.agent, "+14155550102");
    let theirs = db.store.create_number(&sibling.scope, &theirs).await.unwrap();
    let numbers = db.store.numbers_of_connection(&tenant.scope, &tenant.connection.id).await.unwrap();
    assert_eq!(numbers.iter().map(|number| &number.id).collect::<Vec<_>>(), [&tenant.number.id, &theirs.id]);
    let line = |number: &offhook_core::entity::PhoneNumber| NewLine {
        number: LineNumber::Known(number.id.clone()),
        machine: Provisioning::new(Task::GiveBack { ours: settings("a"), previous: settings("b") }),
    };
    let new = NewOperation {
        kind: OperationKind::Disconnect,
        agent: None,
        connection: Some(tenant.connection.id.clone()),
        lines: numbers.iter().map(line).collect(),
    };
    let (operation, lease) = db.store.begin_operation(&tenant.scope, &new, &node("a")).await.unwrap();
    for (seq, line) in operation.lines.iter().enumerate() {
        let ended = (seq == 1).then_some((OperationStatus::Done, None));
        let end = Some(LineEnd::Removed);
        let progress = Progress { line: Some((seq, line)), end, ended, ..Progress::default() };
        db.store.save_operation(&lease, &progress).await.unwrap();
    }
    let gone = db.store.connection(&tenant.scope, &tenant.connection.id).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    let gone = db.store.number(&sibling.scope, &theirs.id).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
}

async fn a_connection_stays_with_a_number_that_was_added_meanwhile(db: Database) {
    let tenant = db.tenant("acme").await;
    let new = NewOperation {
        kind: OperationKind::Disconnect,
        agent: None,
        connection: Some(tenant.connection.id.clone()),
        lines: vec![NewLine { number: known(&tenant), machine: Provisioning::new(Task::Release) }],
    };
    let (operation, lease) = db.store.begin_operation(&tenant.scope, &new, &node("a")).await.unwrap();
    let added = number(&tenant.connection, &tenant.agent, "+14155550199");
    db.store.create_number(&tenant.scope, &added).await.unwrap();
    end(&db, &lease, &operation.lines[0], LineEnd::Removed, OperationStatus::Done).await;
    let ended = db.store.operation(&tenant.scope, &operation.id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Failed);
    assert!(ended.reason.as_ref().is_some_and(|reason| reason.contains("+14155550199")), "{ended:?}");
    db.store.connection(&tenant.scope, &tenant.connection.id).await.unwrap();
    db.clock.advance_ms(LEASE_OVER_MS);
    assert!(db.store.claim_operations(&node("b"), 10).await.unwrap().is_empty(), "it is over");
}

async fn an_account_stays_while_its_numbers_lead_here(db: Database) {
    let tenant = db.tenant("acme").await;
    let id = &tenant.connection.id;
    let move_to = async |account: &str| {
        let now = db.store.connection(&tenant.scope, id).await.unwrap();
        let spec = ConnectionSpec { account: Some(account.into()), ..twilio(&now.name) };
        db.store.replace_connection(&tenant.scope, id, now.revision, &spec).await.map(|_| ())
    };
    move_to("AC2").await.expect("nothing was set in it");
    let (operation, lease) = take_over(&db, &tenant).await;
    let error = move_to("AC3").await.unwrap_err();
    assert!(error.to_string().contains("+14155550100"), "{error}");
    end(&db, &lease, &operation.lines[0], leads_here(), OperationStatus::Done).await;
    let error = move_to("AC3").await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { what: "account", .. }), "{error:?}");
    move_to("AC2").await.expect("it is the same account");
}

async fn a_number_is_held_once_for_each_account(db: Database) {
    let tenant = db.tenant("acme").await;
    let again = db.store.create_connection(&tenant.scope, &twilio("same account")).await.unwrap();
    let spec = number(&again, &tenant.agent, "+14155550100");
    let error = db.store.create_number(&tenant.scope, &spec).await.unwrap_err();
    assert!(error.to_string().contains("agent `reception` answers it"), "{error}");
    let held = db.store.held_numbers(&tenant.scope, &again.id).await.unwrap();
    assert_eq!((held.len(), &held[0].number), (1, &Some(tenant.number.id.clone())));
    let sibling = db.store.create_workspace(&tenant.scope, &hours("second")).await.unwrap();
    let sibling = offhook_store::Scope::system(&sibling, "test");
    let held = db.store.held_numbers(&sibling, &again.id).await.unwrap();
    assert_eq!((held[0].holder.as_str(), &held[0].number), ("workspace `main` has it", &None));
    let other = ConnectionSpec { account: Some("AC2".into()), ..twilio("other account") };
    let other = db.store.create_connection(&tenant.scope, &other).await.unwrap();
    assert!(db.store.held_numbers(&tenant.scope, &other.id).await.unwrap().is_empty());

    let telnyx = async |name: &str, key: &str| {
        let config = serde_json::json!({ "public_key": key });
        let spec = ConnectionSpec { kind: "telnyx".into(), account: None, config, ..twilio(name) };
        db.store.create_connection(&tenant.scope, &spec).await.unwrap()
    };
    let (first, second) = (telnyx("first key", "key").await, telnyx("second key", "key").await);
    db.store.create_number(&tenant.scope, &number(&first, &tenant.agent, "+14155550188")).await.unwrap();
    let again = db.store.create_number(&tenant.scope, &number(&second, &tenant.agent, "+14155550188")).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    assert_eq!(db.store.held_numbers(&tenant.scope, &second.id).await.unwrap().len(), 1);
    let other = telnyx("other key", "another").await;
    assert!(db.store.held_numbers(&tenant.scope, &other.id).await.unwrap().is_empty());
}

async fn a_number_that_leads_elsewhere_is_in_error_until_it_is_back(db: Database) {
    let tenant = db.tenant("acme").await;
    let fault = Some("its calls go to https://other");
    let row = db.store.number_checked(&tenant.scope, &tenant.number.id, fault).await.unwrap();
    assert_eq!((row.status, row.status_reason.as_deref()), (NumberStatus::Error, fault));
    let spec =
        NumberSpec { name: "desk".into(), ..number(&tenant.connection, &tenant.agent, "+14155550100") };
    let row = db.store.replace_number(&tenant.scope, &row.id, 1, &spec).await.unwrap();
    assert_eq!(row.status, NumberStatus::Error, "a name mends nothing");
    let row = db.store.number_checked(&tenant.scope, &row.id, None).await.unwrap();
    assert_eq!((row.status, row.status_reason), (NumberStatus::Active, None));
}

async fn numbers_are_due_for_a_look_once(db: Database) {
    let tenant = db.tenant("acme").await;
    assert!(db.store.claim_unchecked(i64::MAX, 10).await.unwrap().is_empty(), "nobody has pointed it here");
    let begun = take_over(&db, &tenant).await;
    let line = tell(&db, &begun, vec![]).await;
    end(&db, &begun.1, &line, leads_here(), OperationStatus::Done).await;
    let checked = db.store.number(&tenant.scope, &tenant.number.id).await.unwrap().checked_at_us.unwrap();
    assert!(db.store.claim_unchecked(checked, 10).await.unwrap().is_empty(), "it was just seen");
    let due = db.store.claim_unchecked(checked + 1, 10).await.unwrap();
    assert_eq!((due.len(), &due[0].1.id), (1, &tenant.number.id));
    assert_eq!(due[0].0.workspace(), &tenant.workspace.id);
    assert!(db.store.claim_unchecked(checked + 1, 10).await.unwrap().is_empty());
}

async fn what_cannot_be_read_keeps_nothing_else_from_going_on(db: Database) {
    let tenant = db.tenant("acme").await;
    let spec = number(&tenant.connection, &tenant.agent, "+14155550101");
    let damaged = db.store.create_number(&tenant.scope, &spec).await.unwrap();
    let take = async |id: &offhook_core::PhoneNumberId| {
        let task = Task::TakeOver { previous: None };
        begin(&db, &tenant, OperationKind::TakeBack, LineNumber::Known(id.clone()), task).await.unwrap()
    };
    let (broken, readable) = (take(&damaged.id).await, take(&tenant.number.id).await);
    let raw = db.raw().await;
    let damage = format!("UPDATE operation_line SET machine = '{{' WHERE operation = '{}'", broken.0.id);
    raw.execute_unprepared(&damage).await.unwrap();
    db.clock.advance_ms(LEASE_OVER_MS);
    let claimed = db.store.claim_operations(&node("b"), 10).await.unwrap();
    assert_eq!(claimed.iter().map(|(operation, _)| &operation.id).collect::<Vec<_>>(), [&readable.0.id]);

    end(&db, &claimed[0].1, &readable.0.lines[0], leads_here(), OperationStatus::Done).await;
    let damage = format!(
        "UPDATE phone_number SET leads_here = TRUE, operation = NULL, settings = '{{' WHERE id = '{}'",
        damaged.id
    );
    raw.execute_unprepared(&damage).await.unwrap();
    let due = db.store.claim_unchecked(i64::MAX, 10).await.unwrap();
    assert_eq!(due.iter().map(|(_, number)| &number.id).collect::<Vec<_>>(), [&tenant.number.id]);
}
