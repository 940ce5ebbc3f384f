//! The few functions of PocketSphinx 5.1.1 that the recogniser calls, as `pocketsphinx.h` declares them.
//! It promises nothing beyond the C declarations: safety is the business of its only user, `decoder`.
#![allow(unsafe_code, reason = "declares a C library")]

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub struct Config {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct Decoder {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct Segments {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    pub fn err_set_callback(callback: *const c_void, user_data: *mut c_void);

    pub fn ps_config_init(defaults: *const c_void) -> *mut Config;
    pub fn ps_config_free(config: *mut Config) -> c_int;
    pub fn ps_config_set_str(config: *mut Config, name: *const c_char, value: *const c_char)
    -> *const c_void;
    pub fn ps_config_set_bool(config: *mut Config, name: *const c_char, value: c_int) -> *const c_void;

    pub fn ps_init(config: *mut Config) -> *mut Decoder;
    pub fn ps_free(decoder: *mut Decoder) -> c_int;
    pub fn ps_set_cmn(decoder: *mut Decoder, cmn: *const c_char) -> c_int;
    pub fn ps_add_word(
        decoder: *mut Decoder,
        word: *const c_char,
        phones: *const c_char,
        update: c_int,
    ) -> c_int;
    pub fn ps_add_jsgf_string(decoder: *mut Decoder, name: *const c_char, jsgf: *const c_char) -> c_int;
    pub fn ps_activate_search(decoder: *mut Decoder, name: *const c_char) -> c_int;

    pub fn ps_start_stream(decoder: *mut Decoder) -> c_int;
    pub fn ps_start_utt(decoder: *mut Decoder) -> c_int;
    pub fn ps_process_raw(
        decoder: *mut Decoder,
        samples: *const i16,
        count: usize,
        no_search: c_int,
        full_utterance: c_int,
    ) -> c_int;
    pub fn ps_end_utt(decoder: *mut Decoder) -> c_int;
    pub fn ps_seg_iter(decoder: *mut Decoder) -> *mut Segments;
    pub fn ps_seg_next(segments: *mut Segments) -> *mut Segments;
    pub fn ps_seg_word(segments: *mut Segments) -> *const c_char;
    pub fn ps_seg_frames(segments: *mut Segments, start: *mut c_int, end: *mut c_int);
    pub fn ps_seg_prob(
        segments: *mut Segments,
        acoustic: *mut i32,
        grammar: *mut i32,
        back_off: *mut i32,
    ) -> i32;
}
