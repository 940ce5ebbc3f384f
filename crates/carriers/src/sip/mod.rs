//! SIP trunks and PBXs: our own user agent. This part is its media: what a call agrees on (SDP) and the sound itself (RTP, SRTP).

pub mod rtp;
pub mod sdp;
pub mod srtp;
