//! What an operation does to each of its numbers, from how they stand here. It asks nobody.

use offhook_core::entity::{NumberRoute, NumberSource, OperationKind, PhoneNumber};
use offhook_core::provisioning::{Outcome, Provisioning, Task};
use offhook_core::{AgentId, ConnectionId, PhoneNumberId};
use offhook_store::{LineNumber, NewLine, NewOperation, NumberSpec};

/// A number is bought.
pub fn buy(spec: NumberSpec) -> NewOperation {
    let number = LineNumber::New(Box::new(spec), NumberSource::Managed);
    operation(OperationKind::Buy, vec![NewLine { number, machine: Provisioning::new(Task::Buy) }])
}

/// A number of the connection's account is pointed here; a trunk's lead here anyway.
pub fn import(spec: NumberSpec, source: NumberSource) -> NewOperation {
    let task = Task::TakeOver { previous: None };
    let machine = match source {
        NumberSource::Sip => Provisioning::over_already(task, Outcome::Done),
        NumberSource::Byo | NumberSource::Managed => Provisioning::new(task),
    };
    let number = LineNumber::New(Box::new(spec), source);
    operation(OperationKind::Import, vec![NewLine { number, machine }])
}

/// A number is pointed here again.
pub fn take_back(number: &PhoneNumber) -> NewOperation {
    operation(OperationKind::TakeBack, vec![known(number, take_over(number))])
}

/// A number is given back; `None` if there is nothing to give back.
pub fn remove(number: &PhoneNumber) -> Option<NewOperation> {
    let route = number.route.as_ref().filter(|route| route.leads_here)?;
    Some(operation(OperationKind::Remove, vec![known(number, give_back(route))]))
}

/// A number is let go for good.
pub fn release(number: &PhoneNumber) -> NewOperation {
    operation(OperationKind::Release, vec![known(number, Task::Release)])
}

/// An agent's numbers are pointed here, as far as carriers have a say in that.
pub fn start(agent: &AgentId, numbers: &[PhoneNumber]) -> NewOperation {
    let lines = numbers.iter().filter(|number| number.source != NumberSource::Sip);
    let lines = lines.map(|number| known(number, take_over(number))).collect();
    NewOperation { agent: Some(agent.clone()), ..operation(OperationKind::Start, lines) }
}

/// An agent's numbers that led elsewhere before they were added are given back; the others stay here, where nobody answers them.
pub fn stop(agent: &AgentId, numbers: &[PhoneNumber]) -> NewOperation {
    let led_elsewhere = |number: &PhoneNumber| -> Option<NewLine> {
        let route = number.route.as_ref().filter(|route| route.leads_here)?;
        let back = number.source == NumberSource::Byo && route.previous.led_elsewhere(&route.ours);
        back.then(|| known(number, give_back(route)))
    };
    let lines = numbers.iter().filter_map(led_elsewhere).collect();
    NewOperation { agent: Some(agent.clone()), ..operation(OperationKind::Stop, lines) }
}

/// A connection goes: its numbers are given back, and go.
pub fn disconnect(connection: &ConnectionId, numbers: &[PhoneNumber]) -> NewOperation {
    let line = |number: &PhoneNumber| match number.route.as_ref().filter(|route| route.leads_here) {
        Some(route) => known(number, give_back(route)),
        None => NewLine {
            number: LineNumber::Known(number.id.clone()),
            machine: Provisioning::over_already(Task::Release, Outcome::Done),
        },
    };
    let lines = numbers.iter().map(line).collect();
    NewOperation { connection: Some(connection.clone()), ..operation(OperationKind::Disconnect, lines) }
}

fn operation(kind: OperationKind, lines: Vec<NewLine>) -> NewOperation {
    NewOperation { kind, agent: None, connection: None, lines }
}

fn known(number: &PhoneNumber, task: Task) -> NewLine {
    let id: &PhoneNumberId = &number.id;
    NewLine { number: LineNumber::Known(id.clone()), machine: Provisioning::new(task) }
}

/// What led there before it came here is remembered for as long as it is ours, whoever has changed it meanwhile.
fn take_over(number: &PhoneNumber) -> Task {
    let ours = number.route.as_ref().filter(|route| route.leads_here);
    Task::TakeOver { previous: ours.map(|route| route.previous.clone()) }
}

fn give_back(route: &NumberRoute) -> Task {
    Task::GiveBack { ours: route.ours.clone(), previous: route.previous.clone() }
}
