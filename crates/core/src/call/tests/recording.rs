//! What is recorded, and when.

use super::*;

fn announced() -> CallPlan {
    CallPlan { recording: Recording::Announced("This call is recorded.".into()), ..plan() }
}

#[test]
fn nothing_is_recorded_before_the_announcement_was_heard() {
    check_with(
        announced(),
        &[
            (400, Starts),
            (600, Interim("hello")),
            (900, Stops),
            (950, Says("Hello?")),
            (1_300, Writes("Hi.")),
            (5_000, Waits),
        ],
        expect![[r#"
              1110 records
            Agent: This call is recorded.
            Agent: Ada's, hello.
            Caller: Hello?
            Agent: Hi.
            asked 1 times, last with: agent This call is | user hello"#]],
    );
}

#[test]
fn an_announcement_that_cannot_be_proven_to_be_heard_is_no_consent() {
    let mut bed = Bed::new(announced());
    bed.tell(Input::Connected);
    bed.queue.clear();
    bed.until(8_000);
    assert!(!bed.story.iter().any(|s| s.ends_with("records")), "{:?}", bed.story);
    // It breaks off with the node and is said to its end by the next.
    let mut bed = Bed::new(announced());
    bed.tell(Input::Connected);
    bed.until(600);
    bed.act(&NodeDies);
    assert!(!bed.story.iter().any(|s| s.ends_with("records")), "{:?}", bed.story);
    bed.act(&Connected);
    bed.until(4_000);
    assert_eq!(bed.story.iter().filter(|s| s.ends_with("records")).count(), 1, "{:?}", bed.story);
}

#[test]
fn that_an_announcement_must_have_been_heard_by_now_is_no_consent() {
    let mut bed = Bed::new(announced());
    bed.tell(Input::Connected);
    // Its last mark is lost, and then the node.
    bed.until(700);
    bed.queue.clear();
    bed.until(1_400);
    bed.act(&Starts);
    bed.act(&NodeDies);
    bed.act(&Connected);
    bed.until(6_000);
    assert!(!bed.story.iter().any(|s| s.ends_with("records")), "{:?}", bed.story);
}

#[test]
fn the_agent_stops_recording_while_a_card_is_keyed_in() {
    check_with(
        CallPlan { recording: Recording::On, ..plan() },
        &[
            (1_050, Says("I want to pay.")),
            (1_100, Begins("Key in your card.")),
            (1_110, Wants("record", r#"{"on": false}"#)),
            (1_120, Done),
            (1_130, Writes("Now.")),
            (4_000, Key('4')),
            (4_100, Key('2')),
            (4_200, Key('#')),
            (4_300, Wants("record", r#"{"on": true}"#)),
            (4_310, Done),
            (4_320, Writes("Paid.")),
            (7_000, Waits),
        ],
        expect![[r#"
                 0 records
              1120 stops recording
              4310 records
            Agent: Ada's, hello.
            Caller: I want to pay.
            Agent: Key in your card.
            Agent: Now.
            Caller: (pressed keys)
            Agent: Paid.
            asked 4 times, last with: agent Ada's, hello. | user I want to pay. | agent Key in your card. -> 1 | tool ok: nothing is recorded | agent Now. | user (pressed 42#) | agent  -> 1 | tool ok: the call is recorded"#]],
    );
}

#[test]
fn a_call_that_is_not_to_be_recorded_never_is() {
    for recording in [Recording::Off, Recording::Never] {
        let mut bed = Bed::new(CallPlan { recording: recording.clone(), ..plan() });
        bed.tell(Input::Connected);
        bed.act(&OrdersRecording(true));
        bed.act(&OrdersRecording(false));
        bed.act(&OrdersRecording(true));
        bed.until(3_000);
        assert!(!bed.story.iter().any(|s| s.contains("record")), "{recording:?}: {:?}", bed.story);
    }
}

#[test]
fn a_recorded_call_is_bridged_through_us_and_recorded_on_by_another_node() {
    check_with(
        CallPlan {
            recording: Recording::On,
            opening: Opening::Reach(handoff::reach(&["+14155550101"])),
            ..plan()
        },
        &[
            (2_000, PicksUp),
            (3_000, PersonPresses('1')),
            (3_200, Bridged),
            (4_000, OrdersRecording(false)),
            (5_000, OrdersRecording(true)),
            (6_000, NodeDies),
            (6_500, Connected),
            (8_000, HangsUp),
        ],
        expect![[r#"
                 0 records
                 0 rings +14155550101
                 0 tone Ringback
              2000 tells the person: Press 1 to take the call.
              2000 tone Waiting
              3000 bridges here
              3200 no tone
              4000 stops recording
              5000 records
              6000 records
              6000 drops leg 1
              6500 rings +14155550101
              6500 tone Ringback
              8000 drops leg 2
            CallerHungUp
            asked 0 times, last with: "#]],
    );
}
