//! How loud audio is, and where in it there is sound at all. It measures energy only and cannot tell speech from noise.

/// The level reported for digital silence, dBFS: the quietest one-bit signal is far above it.
pub const SILENCE_DBFS: f32 = -120.0;

/// RMS level of `pcm` in dBFS, where 0 is a full-scale square wave (a full-scale sine is -3); [`SILENCE_DBFS`] for
/// digital silence or no samples.
pub fn rms_dbfs(pcm: &[i16]) -> f32 {
    power_dbfs(mean_square(pcm))
}

/// The largest magnitude in `pcm`, 0 to 32768.
pub fn peak(pcm: &[i16]) -> u16 {
    pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0)
}

/// Mean of the squared samples, 0 for no samples.
pub fn mean_square(pcm: &[i16]) -> f32 {
    if pcm.is_empty() {
        return 0.0;
    }
    let sum: i64 = pcm.iter().map(|sample| i64::from(i32::from(*sample) * i32::from(*sample))).sum();
    sum as f32 / pcm.len() as f32
}

/// The level in dBFS of a mean square of samples.
pub fn power_dbfs(mean_square: f32) -> f32 {
    const FULL_SCALE: f32 = 32_768.0 * 32_768.0;
    (10.0 * (mean_square / FULL_SCALE).log10()).max(SILENCE_DBFS)
}

/// A stretch of audio, milliseconds from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub start_ms: u32,
    /// Where it ends; the first millisecond that no longer belongs to it.
    pub end_ms: u32,
}

impl Span {
    /// Length in milliseconds.
    pub const fn length_ms(self) -> u32 {
        self.end_ms - self.start_ms
    }
}

/// What counts as sound for [`voiced_spans`].
#[derive(Clone, Copy, Debug)]
pub struct Voiced {
    /// Ten milliseconds above this RMS level are sound, dBFS.
    pub above_dbfs: f32,
    /// Silence shorter than this does not end a span, milliseconds.
    pub bridge_ms: u32,
}

impl Default for Voiced {
    /// Sound above -42 dBFS, with pauses under 100 ms (as between the words of a sentence) bridged.
    fn default() -> Self {
        Voiced { above_dbfs: -42.0, bridge_ms: 100 }
    }
}

/// Where `pcm` has sound, in blocks of 10 ms; the spans are in order and apart by `bridge_ms` or more.
pub fn voiced_spans(pcm: &[i16], rate_hz: u32, voiced: Voiced) -> Vec<Span> {
    let block = (rate_hz / 100).max(1) as usize;
    let mut spans: Vec<Span> = vec![];
    for (index, samples) in pcm.chunks(block).enumerate() {
        if rms_dbfs(samples) <= voiced.above_dbfs {
            continue;
        }
        let (start_ms, end_ms) = (index as u32 * 10, (index as u32 + 1) * 10);
        match spans.last_mut() {
            Some(last) if start_ms < last.end_ms + voiced.bridge_ms.max(1) => last.end_ms = end_ms,
            _ => spans.push(Span { start_ms, end_ms }),
        }
    }
    spans
}

/// The silences between spans of sound.
pub fn gaps(spans: &[Span]) -> Vec<Span> {
    spans.windows(2).map(|pair| Span { start_ms: pair[0].end_ms, end_ms: pair[1].start_ms }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_known_signals() {
        let square: Vec<i16> = (0..160).map(|i| if i % 2 == 0 { 32_767 } else { -32_768 }).collect();
        assert!(rms_dbfs(&square).abs() < 0.001);
        assert_eq!(peak(&square), 32_768);
        let sine: Vec<i16> = (0..8_000).map(|i| ((i as f32 * 0.1).sin() * 3_276.8) as i16).collect();
        assert!((rms_dbfs(&sine) + 23.0).abs() < 0.1, "{}", rms_dbfs(&sine));
        assert_eq!(rms_dbfs(&[0; 160]), SILENCE_DBFS);
        assert_eq!((rms_dbfs(&[]), peak(&[])), (SILENCE_DBFS, 0));
    }

    #[test]
    fn spans_bridge_short_pauses_and_keep_long_ones() {
        let mut pcm = vec![];
        for (ms, amplitude) in [(50, 0), (200, 4_000), (60, 0), (100, 4_000), (300, 0), (40, 4_000), (10, 0)]
        {
            pcm.extend((0..ms * 8).map(|i| if i % 8 < 4 { amplitude } else { -amplitude }));
        }
        let spans = voiced_spans(&pcm, 8_000, Voiced::default());
        assert_eq!(spans, [Span { start_ms: 50, end_ms: 410 }, Span { start_ms: 710, end_ms: 750 }]);
        assert_eq!(gaps(&spans), [Span { start_ms: 410, end_ms: 710 }]);
        assert_eq!(gaps(&spans)[0].length_ms(), 300);
        let unbridged = voiced_spans(&pcm, 8_000, Voiced { bridge_ms: 0, ..Voiced::default() });
        assert_eq!(unbridged.len(), 3);
    }
}
