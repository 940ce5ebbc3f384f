use super::*;
use std::collections::BTreeMap;

const OLD: &[(&str, Option<&str>)] =
    &[("fallback", None), ("method", Some("GET")), ("trunk", Some("TK1")), ("voice", None)];
const OURS: &[(&str, Option<&str>)] = &[
    ("fallback", Some("https://ours/2")),
    ("method", Some("POST")),
    ("trunk", None),
    ("voice", Some("https://ours/1")),
];

fn settings(pairs: &[(&str, Option<&str>)]) -> Settings {
    Settings(pairs.iter().map(|(name, value)| ((*name).into(), value.map(Into::into))).collect())
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing.
    None,
    /// Too many requests, no connection: it was not carried out.
    Passing,
    /// It was not carried out, and nobody can tell.
    LostBefore,
    /// It was carried out, and nobody can tell.
    LostAfter,
    /// It is carried out later than one would think.
    Late,
    /// A part of it was carried out, then it failed as if it had not been.
    Partly,
    /// A part of it was carried out, then the carrier refused.
    RefusedPartly,
    /// The carrier refuses.
    Refused,
    /// The process dies before it has sent it.
    KilledBefore,
    /// The process dies when it was carried out, before it hears of that.
    KilledAfter,
}

const FAULTS: &[Fault] = &[
    Fault::Passing,
    Fault::LostBefore,
    Fault::LostAfter,
    Fault::Late,
    Fault::Partly,
    Fault::RefusedPartly,
    Fault::Refused,
    Fault::KilledBefore,
    Fault::KilledAfter,
];

/// A carrier with one number, as far as this machine sees one. Lists and settings may be shown as they were a few looks ago, but never
/// go back to what was older still.
struct World {
    owned: bool,
    settings: Settings,
    /// How many looks still see what was before the last change.
    lag: u32,
    lag_after_change: u32,
    shown: Option<Settings>,
    orders: Option<Vec<bool>>,
    purchases: u32,
    late: Option<(u32, Request)>,
    requests: u32,
    refused_writes: bool,
    /// The number as it was before anything was asked.
    first: Option<Settings>,
    /// The machine's memory of it when the first change came.
    remembered: bool,
}

impl World {
    fn new(owned: Option<Settings>, orders: bool, lag: u32) -> World {
        World {
            owned: owned.is_some(),
            settings: owned.clone().unwrap_or_default(),
            lag: 0,
            lag_after_change: lag,
            shown: owned.clone(),
            orders: orders.then(Vec::new),
            purchases: 0,
            late: None,
            requests: 0,
            refused_writes: false,
            first: owned,
            remembered: false,
        }
    }

    fn truth(&self) -> Option<Settings> {
        self.owned.then(|| self.settings.clone())
    }

    fn look(&mut self) -> Answer {
        if self.lag > 0 {
            self.lag -= 1;
        } else {
            self.shown = self.truth();
        }
        Answer::Looked(self.shown.clone().map(there))
    }

    fn changed(&mut self) {
        self.lag = self.lag_after_change;
    }

    fn carry_out(&mut self, request: &Request) -> Answer {
        match request {
            Request::Look => self.look(),
            Request::Prepare => Answer::Prepared(settings(OURS)),
            Request::Buy { .. } if self.owned => {
                Answer::Failed(Failure::Refused { reason: "no longer available".into() })
            }
            Request::Buy { settings } => {
                (self.owned, self.settings) = (true, settings.clone());
                self.purchases += 1;
                self.changed();
                match &mut self.orders {
                    None => Answer::Purchase(Purchase::Done),
                    Some(orders) => {
                        orders.push(true);
                        Answer::Purchase(Purchase::Ordered("order".into()))
                    }
                }
            }
            Request::FindOrder => {
                let found = self.orders.as_ref().is_some_and(|orders| !orders.is_empty());
                Answer::Order(found.then(|| "order".into()))
            }
            Request::FollowOrder { .. } => Answer::Purchase(Purchase::Done),
            Request::Set { settings, .. } => {
                self.settings.0.extend(settings.0.clone());
                self.changed();
                // The answer to a change shows the change.
                self.shown = self.truth();
                Answer::Looked(self.truth().map(there))
            }
            Request::Release { .. } => {
                self.owned = false;
                self.changed();
                Answer::Released
            }
        }
    }

    fn answer(&mut self, request: &Request, fault: Fault) -> Option<Answer> {
        self.requests += 1;
        if let Some((at, late)) = self.late.take() {
            if self.requests < at {
                self.late = Some((at, late));
            } else {
                self.carry_out(&late);
            }
        }
        let passing = || Answer::Failed(Failure::Passing { reason: "429".into(), after_ms: Some(3) });
        let unknown = || Answer::Failed(Failure::Unknown { reason: "time-out".into() });
        let refused = || Answer::Failed(Failure::Refused { reason: "not allowed".into() });
        let part = |request: &Request| match request {
            Request::Set { there, settings } => Some(Request::Set {
                there: there.clone(),
                settings: Settings(settings.0.clone().into_iter().take(1).collect()),
            }),
            _ => None,
        };
        Some(match fault {
            Fault::None => self.carry_out(request),
            Fault::Passing => passing(),
            Fault::LostBefore => unknown(),
            Fault::LostAfter => {
                self.carry_out(request);
                unknown()
            }
            Fault::Late => {
                let change = matches!(request, Request::Buy { .. } | Request::Release { .. });
                if change && self.late.is_none() {
                    self.late = Some((self.requests + 3, request.clone()));
                }
                unknown()
            }
            Fault::Partly => {
                if let Some(part) = part(request) {
                    self.carry_out(&part);
                }
                passing()
            }
            Fault::RefusedPartly => {
                if let Some(part) = part(request) {
                    self.carry_out(&part);
                    self.refused_writes = true;
                }
                refused()
            }
            Fault::Refused => {
                self.refused_writes |=
                    !matches!(request, Request::Look | Request::Prepare | Request::FindOrder);
                refused()
            }
            Fault::KilledBefore => return None,
            Fault::KilledAfter => {
                self.carry_out(request);
                return None;
            }
        })
    }
}

fn there(settings: Settings) -> There {
    There { id: "PN1".into(), capabilities: vec![Capability::Voice], settings }
}

/// More requests than any operation needs, with a handful of faults.
const REQUESTS_MAX: u32 = 200;

/// Runs a task to its end, with these faults by request.
fn run(task: Task, world: &mut World, faults: &dyn Fn(u32) -> Fault) -> Provisioning {
    let mut machine = Provisioning::new(task);
    while let Some(request) = machine.ask() {
        let stored = serde_json::to_string(&machine).unwrap();
        if matches!(request, Request::Set { .. } | Request::Buy { .. }) {
            world.remembered = machine.previous().is_some() && machine.ours().is_some();
            assert!(world.remembered, "what leads there now and what did before is known before a change");
        }
        match world.answer(&request, faults(world.requests)) {
            Some(answer) => machine.told(answer),
            None => {
                machine = serde_json::from_str(&stored).unwrap();
                machine.resume();
            }
        }
        assert!(machine.pause_ms() <= PAUSE_MS_MAX);
        assert!(world.requests < REQUESTS_MAX, "it does not end: {machine:?}");
    }
    machine
}

fn tasks() -> Vec<(Task, Option<Settings>)> {
    let (old, ours) = (settings(OLD), settings(OURS));
    vec![
        (Task::Buy, None),
        (Task::TakeOver { previous: None }, Some(old.clone())),
        (Task::TakeOver { previous: Some(settings(&[("voice", Some("https://first"))])) }, Some(old.clone())),
        (Task::GiveBack { ours: ours.clone(), previous: old }, Some(ours.clone())),
        (Task::Release, Some(ours)),
    ]
}

/// What must hold when it is over, whatever has gone wrong.
fn judge(machine: &Provisioning, world: &World, context: &str) {
    let (old, ours) = (settings(OLD), settings(OURS));
    let outcome = machine.outcome().expect("it is over");
    assert!(world.purchases <= 1, "{context}: bought {} times", world.purchases);
    let expected = match (machine.task(), outcome) {
        (Task::Buy | Task::TakeOver { .. }, Outcome::Done) => Some(ours),
        (Task::GiveBack { .. }, Outcome::Done) => Some(old),
        (Task::Release, Outcome::Gone) => None,
        (_, Outcome::Unchanged { .. }) => world.first.clone(),
        (Task::Buy, Outcome::Unclear { .. }) if world.refused_writes => {
            assert!(world.owned, "{context}: what was bought is known to be");
            return;
        }
        (_, Outcome::Unclear { .. }) => {
            assert!(world.refused_writes, "{context}: only a refusal leaves something unclear");
            return;
        }
        (task, outcome) => panic!("{context}: {task:?} ended as {outcome:?}"),
    };
    assert_eq!(world.truth(), expected, "{context}: {outcome:?}");
    match machine.task() {
        Task::TakeOver { previous: None } if world.remembered => {
            assert_eq!(machine.previous(), world.first, "{context}: what was there before is remembered");
        }
        Task::TakeOver { previous: previous @ Some(_) } => {
            assert_eq!(&machine.previous(), previous, "{context}")
        }
        _ => {}
    }
}

fn explore(faults: &dyn Fn(u32) -> Fault, context: &str) {
    for (task, owned) in tasks() {
        for orders in [false, true] {
            for lag in [0, 2] {
                let mut world = World::new(owned.clone(), orders, lag);
                let context = format!("{context}, {task:?}, orders {orders}, lag {lag}");
                let machine = run(task.clone(), &mut world, faults);
                // A purchase that is carried out after it was given up would be one that nobody knows of.
                judge(&machine, &world, &context);
            }
        }
    }
}

#[test]
fn without_faults_everything_comes_to_what_was_wanted() {
    explore(&|_| Fault::None, "no fault");
}

#[test]
fn any_two_faults_leave_a_number_ours_or_as_it_was() {
    const REQUESTS: u32 = 9;
    for first in 0..REQUESTS {
        for second in first + 1..=REQUESTS {
            for a in FAULTS {
                for b in FAULTS {
                    let faults = |request| match request {
                        request if request == first => *a,
                        request if request == second => *b,
                        _ => Fault::None,
                    };
                    explore(&faults, &format!("{a:?} at {first}, {b:?} at {second}"));
                }
            }
        }
    }
}

#[test]
fn when_faults_stop_everything_ends() {
    const SEEDS: u64 = 5_000;
    const FAULTY_REQUESTS: u32 = 12;
    for seed in 0..SEEDS {
        let faults = |request: u32| {
            let chance = mixed(seed.wrapping_mul(1_000).wrapping_add(request.into()));
            match request < FAULTY_REQUESTS && !chance.is_multiple_of(3) {
                true => FAULTS[(chance >> 8) as usize % FAULTS.len()],
                false => Fault::None,
            }
        };
        explore(&faults, &format!("seed {seed}"));
    }
}

/// SplitMix64: a number that looks like chance.
fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Tells a machine these answers, one after the other, and names its requests.
fn asks(task: Task, answers: Vec<Answer>) -> (Vec<&'static str>, Provisioning) {
    let mut machine = Provisioning::new(task);
    let mut asked = Vec::new();
    for answer in answers {
        asked.push(name(&machine.ask().expect("something is asked")));
        machine.told(answer);
    }
    asked.extend(machine.request().as_ref().map(name));
    (asked, machine)
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Look => "look",
        Request::Prepare => "prepare",
        Request::Buy { .. } => "buy",
        Request::FindOrder => "find order",
        Request::FollowOrder { .. } => "follow order",
        Request::Set { .. } => "set",
        Request::Release { .. } => "release",
    }
}

#[test]
fn each_step_looks_first() {
    let found = |pairs| Answer::Looked(Some(there(settings(pairs))));
    let unknown = || Answer::Failed(Failure::Unknown { reason: "time-out".into() });
    let refused = || Answer::Failed(Failure::Refused { reason: "no".into() });
    let prepared = || Answer::Prepared(settings(OURS));
    let no = || Outcome::Unchanged { reason: "no".into() };
    let give_back = || Task::GiveBack { ours: settings(OURS), previous: settings(OLD) };
    let take = || Task::TakeOver { previous: None };
    let bought = || Answer::Purchase(Purchase::Done);
    type Case = (&'static str, Task, Vec<Answer>, &'static [&'static str], Option<Outcome>);
    let cases: Vec<Case> = vec![
        (
            "a purchase is looked for before it is made",
            Task::Buy,
            vec![Answer::Looked(None), prepared(), bought(), found(OURS)],
            &["look", "prepare", "buy", "look"],
            Some(Outcome::Done),
        ),
        (
            "a purchase without an answer is looked for, not repeated",
            Task::Buy,
            vec![Answer::Looked(None), prepared(), unknown(), Answer::Order(None), found(OURS)],
            &["look", "prepare", "buy", "find order", "look"],
            Some(Outcome::Done),
        ),
        (
            "a number that another buyer got is not bought",
            Task::Buy,
            vec![Answer::Looked(None), prepared(), refused()],
            &["look", "prepare", "buy"],
            Some(no()),
        ),
        (
            "what leads here already is left alone",
            take(),
            vec![found(OURS), prepared()],
            &["look", "prepare"],
            Some(Outcome::Done),
        ),
        (
            "a number that cannot be pointed here is given back",
            take(),
            vec![found(OLD), prepared(), refused(), found(OLD)],
            &["look", "prepare", "set", "look"],
            Some(no()),
        ),
        (
            "a number of another account is nobody's to take",
            take(),
            vec![Answer::Looked(None)],
            &["look"],
            Some(Outcome::Gone),
        ),
        (
            "what leads back already is left alone",
            give_back(),
            vec![found(OLD)],
            &["look"],
            Some(Outcome::Done),
        ),
        (
            "a number that cannot be given back stays ours",
            give_back(),
            vec![found(OURS), refused(), found(OURS)],
            &["look", "set", "look"],
            Some(no()),
        ),
        (
            "a release without an answer is looked for",
            Task::Release,
            vec![found(OURS), unknown(), Answer::Looked(None)],
            &["look", "release", "look"],
            Some(Outcome::Gone),
        ),
        (
            "an operation that has changed nothing is not tried for ever",
            take(),
            vec![unknown(); TRIES_MAX as usize],
            &["look"; TRIES_MAX as usize],
            Some(Outcome::Unchanged { reason: "time-out".into() }),
        ),
    ];
    for (case, task, answers, expected, outcome) in cases {
        let (asked, machine) = asks(task, answers);
        assert_eq!((&asked[..], machine.outcome()), (expected, outcome.as_ref()), "{case}");
    }
}

/// Runs a task at a carrier that looks well and fails every change, and tells the longest pause.
fn run_failing(task: Task, shown: &[(&str, Option<&str>)], failure: Failure) -> (Provisioning, u32) {
    let (mut machine, mut longest_ms) = (Provisioning::new(task), 0);
    for _ in 0..REQUESTS_MAX {
        longest_ms = longest_ms.max(machine.pause_ms());
        let Some(request) = machine.ask() else { return (machine, longest_ms) };
        machine.told(match request {
            Request::Look => Answer::Looked(Some(there(settings(shown)))),
            Request::Prepare => Answer::Prepared(settings(OURS)),
            _ => Answer::Failed(failure.clone()),
        });
    }
    panic!("it does not end: {machine:?}")
}

#[test]
fn changes_that_keep_failing_are_given_up() {
    let ours = || settings(OURS);
    let third = || settings(&[("voice", Some("https://third")), ("method", Some("GET"))]);
    for failure in
        [Failure::Passing { reason: "no".into(), after_ms: None }, Failure::Unknown { reason: "no".into() }]
    {
        for (task, shown, unclear) in [
            (Task::TakeOver { previous: None }, OLD, false),
            (Task::GiveBack { ours: ours(), previous: third() }, OURS, false),
            (Task::Release, OURS, false),
            // A part of it is given back by now.
            (Task::GiveBack { ours: ours(), previous: settings(OLD) }, &OURS[..3], true),
        ] {
            let (machine, longest_ms) = run_failing(task, shown, failure.clone());
            let reason = "no".to_owned();
            let expected = if unclear { Outcome::Unclear { reason } } else { Outcome::Unchanged { reason } };
            assert_eq!(machine.outcome(), Some(&expected), "{machine:?}");
            assert!(longest_ms > PAUSE_MS, "a good look between them is no reason to hurry: {longest_ms}");
        }
    }
}

#[test]
fn a_bought_number_that_never_shows_is_not_looked_for_without_end() {
    let mut machine = Provisioning::new(Task::Buy);
    let mut waited_ms = 0;
    while let Some(request) = machine.ask() {
        waited_ms += u64::from(machine.pause_ms());
        assert!(waited_ms < 2 * 3_600_000, "it does not end: {machine:?}");
        machine.told(match request {
            Request::Look => Answer::Looked(None),
            Request::Prepare => Answer::Prepared(settings(OURS)),
            _ => Answer::Purchase(Purchase::Done),
        });
    }
    assert!(matches!(machine.outcome(), Some(Outcome::Unclear { .. })), "{machine:?}");
    assert!(waited_ms > 1_800_000, "lists may lag behind for long: {waited_ms}");
}

#[test]
fn pauses_grow_and_the_carriers_wish_is_heeded() {
    let passing = |after_ms| Answer::Failed(Failure::Passing { reason: "429".into(), after_ms });
    let pause = |answers| asks(Task::TakeOver { previous: None }, answers).1.pause_ms();
    assert_eq!(pause(vec![passing(None)]), PAUSE_MS);
    assert_eq!(pause(vec![passing(None), passing(None), passing(None)]), PAUSE_MS * 4);
    assert_eq!(pause(vec![passing(Some(7_000))]), 7_000);
    assert_eq!(pause(vec![passing(Some(u32::MAX))]), AFTER_MS_MAX);
    assert_eq!(pause_ms(u32::MAX), PAUSE_MS_MAX);
}

#[test]
fn what_was_bought_is_given_back_empty() {
    let mut world = World::new(None, false, 0);
    let machine = run(Task::Buy, &mut world, &|_| Fault::None);
    let emptied: BTreeMap<String, Option<String>> = [
        ("fallback".to_owned(), None),
        ("method".to_owned(), Some("POST".to_owned())),
        ("trunk".to_owned(), None),
        ("voice".to_owned(), None),
    ]
    .into();
    assert_eq!(machine.previous(), Some(Settings(emptied)));
    let back = Task::GiveBack { ours: settings(OURS), previous: machine.previous().unwrap() };
    let machine = run(back, &mut world, &|_| Fault::None);
    assert_eq!(machine.outcome(), Some(&Outcome::Done));
    assert_eq!(world.settings.get("voice"), None);
}
