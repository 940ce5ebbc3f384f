//! Messages that callers leave.

use super::*;

fn mailbox() -> CallPlan {
    let voicemail =
        Voicemail { greeting: "Leave a message.".into(), thanks: "Thanks.".into(), ..Voicemail::default() };
    CallPlan { opening: Opening::Voicemail, voicemail, ..plan() }
}

#[test]
fn a_message_ends_with_silence_and_is_thanked_for() {
    check_with(
        mailbox(),
        &[(2_000, Starts), (4_000, Stops), (4_100, Says("This is Ada. Call me back.")), (15_000, Waits)],
        expect![[r#"
               810 beeps
              1320 records
              9100 stops recording
              9460 hangs up
            Agent: Leave a message.
            Caller: This is Ada. Call me back.
            Agent: Thanks.
            VoicemailLeft
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_key_ends_the_message_and_the_greeting() {
    check_with(
        mailbox(),
        &[
            (300, Key('#')),
            (1_500, Starts),
            (1_600, Interim("call me")),
            (2_500, Key('5')),
            (2_600, Key('#')),
            (6_000, Waits),
        ],
        expect![[r#"
               300 beeps
               810 records
              2600 stops recording
              2960 hangs up
            Agent: Leave [cut]
            Caller: call me
            Agent: Thanks.
            VoicemailLeft
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_caller_who_hangs_up_has_left_a_message_if_they_said_something() {
    let says = [(2_000, Starts), (2_500, Interim("call me")), (3_000, HangsUp)];
    check_with(
        mailbox(),
        &says,
        expect![[r#"
           810 beeps
          1320 records
        Agent: Leave a message.
        Caller: call me
        VoicemailLeft
        asked 0 times, last with: "#]],
    );
    check_with(
        mailbox(),
        &[(3_000, HangsUp)],
        expect![[r#"
           810 beeps
          1320 records
        Agent: Leave a message.
        VoicemailEmpty
        asked 0 times, last with: "#]],
    );
    check_with(
        mailbox(),
        &[(500, HangsUp)],
        expect![[r#"

        Agent: Leave a [cut]
        VoicemailEmpty
        asked 0 times, last with: "#]],
    );
}

#[test]
fn a_message_without_words_is_empty_and_one_without_end_is_ended() {
    check_with(
        mailbox(),
        &[(15_000, Waits)],
        expect![[r#"
           810 beeps
          1320 records
          6320 stops recording
          7880 hangs up
        Agent: Leave a message.
        Agent: Thank you for calling. Goodbye.
        VoicemailEmpty
        asked 0 times, last with: "#]],
    );
    let mut brief = mailbox();
    brief.voicemail.longest_ms = 4_000;
    check_with(
        brief,
        &[(2_000, Starts), (2_500, Interim("on and on")), (9_000, Waits)],
        expect![[r#"
           810 beeps
          1320 records
          5320 stops recording
          5680 hangs up
        Agent: Leave a message.
        Caller: on and on
        Agent: Thanks.
        VoicemailLeft
        asked 0 times, last with: "#]],
    );
}

#[test]
fn a_recorded_greeting_is_played_in_place_of_the_spoken_one() {
    let mut recorded = mailbox();
    recorded.voicemail.greeting_audio = Some("holiday".into());
    check_with(
        recorded,
        &[(1_000, Starts), (1_200, Interim("hello")), (5_000, HangsUp)],
        expect![[r#"
             0 plays holiday
          2010 beeps
          2520 records
        Caller: hello
        VoicemailEmpty
        asked 0 times, last with: "#]],
    );
}

#[test]
fn a_recorded_greeting_that_a_dead_node_had_begun_is_played_anew() {
    let mut recorded = mailbox();
    recorded.voicemail.greeting_audio = Some("holiday".into());
    check_with(
        recorded,
        &[(1_000, NodeDies), (1_500, Connected), (6_000, HangsUp)],
        expect![[r#"
             0 plays holiday
          1500 plays holiday
          3510 beeps
          4020 records
        VoicemailEmpty
        asked 0 times, last with: "#]],
    );
}

#[test]
fn a_call_for_a_sentence_that_is_empty_ends_at_once() {
    check_with(
        CallPlan { opening: Opening::Message(" ".into()), ..plan() },
        &[(1_000, Waits)],
        expect![[r#"
                 0 hangs up
            MessageTold
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_message_is_taken_without_voice_and_recogniser() {
    check_with(
        mailbox(),
        &[
            (200, RecogniserFails(false)),
            (300, VoiceFails(false)),
            (2_000, Starts),
            (5_000, Stops),
            (12_000, Waits),
        ],
        expect![[r#"
               300 beeps
               810 records
             10000 stops recording
             10000 hangs up
            Agent: Leave [cut]
            VoicemailLeft
            asked 0 times, last with: "#]],
    );
}

#[test]
fn where_nothing_may_be_kept_nobody_is_asked_for_a_message() {
    check_with(
        CallPlan { recording: Recording::Never, ..mailbox() },
        &[(8_000, Waits)],
        expect![[r#"
          2310 hangs up
        Agent: I am sorry, nobody could be reached right now.
        NobodyReached
        asked 0 times, last with: "#]],
    );
}

#[test]
fn a_message_is_taken_when_the_agent_cannot_go_on() {
    check_with(
        CallPlan { fallback: Fallback::Voicemail, opening: Opening::Agent, ..mailbox() },
        &[(2_000, RecogniserFails(false)), (8_000, Starts), (10_000, Stops), (18_000, Waits)],
        expect![[r#"
              5070 beeps
              5580 records
             15000 stops recording
             15360 hangs up
            Agent: Ada's, hello.
            Agent: I am sorry, something went wrong on our side.
            Agent: Leave a message.
            Agent: Thanks.
            VoicemailLeft
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_colleague_can_take_a_call_over_from_the_machine() {
    check_with(
        mailbox(),
        &[
            (2_000, Starts),
            (3_000, Interim("hello")),
            (3_500, TakesOver("+14155550102", false)),
            (6_000, Gone(LegEnd::Busy)),
            (9_000, HangsUp),
        ],
        expect![[r#"
               810 beeps
              1320 records
              3500 stops recording
              3500 rings +14155550102
              3500 tone Ringback
              6000 no tone
              6810 beeps
              7320 records
            Agent: Leave a message.
            Caller: hello
            Agent: One moment, please. I am connecting you.
            Agent: Leave a message.
            VoicemailEmpty
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_message_goes_on_on_another_node() {
    check_with(
        mailbox(),
        &[(2_000, Starts), (3_000, Says("Call me.")), (3_500, NodeDies), (4_500, Connected), (14_000, Waits)],
        expect![[r#"
               810 beeps
              1320 records
              3500 records
              9500 stops recording
              9860 hangs up
            Agent: Leave a message.
            Caller: Call me.
            Agent: Thanks.
            VoicemailLeft
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_sentence_is_told_and_the_call_ends() {
    check_with(
        CallPlan { opening: Opening::Message("We are closed.".into()), ..plan() },
        &[(300, Starts), (500, Interim("are you")), (600, Key('1')), (4_000, Waits)],
        expect![[r#"
               710 hangs up
            Agent: We are closed.
            Caller: are you (pressed 1)
            MessageTold
            asked 0 times, last with: "#]],
    );
    let mut bed = Bed::new(CallPlan { opening: Opening::Message("We are closed.".into()), ..plan() });
    bed.until(61_000);
    assert_eq!(bed.call.ended(), Some(EndedReason::NeverConnected));
}

#[test]
fn a_tone_that_broke_off_with_its_node_is_played_again_before_anything_is_recorded() {
    let mut bed = Bed::new(mailbox());
    bed.tell(Input::Connected);
    bed.until(900);
    bed.act(&NodeDies);
    bed.act(&Connected);
    bed.until(3_000);
    let told: Vec<_> = bed.story.iter().map(|line| line.split_whitespace().last().unwrap()).collect();
    assert_eq!(told, ["beeps", "beeps", "records"], "{:?}", bed.story);
}
