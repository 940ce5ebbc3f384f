//! G.711, the µ-law and A-law codings of the telephone network, by table in both directions.
//! It knows one sample at a time and nothing of packets or rates.

/// One of the two codings of ITU-T G.711.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// µ-law, called PCMU in SDP: North America and Japan, and the only one on Twilio's media streams.
    Mu,
    /// A-law, called PCMA in SDP: the rest of the world.
    A,
}

/// The µ-law byte of digital silence, sample 0.
pub const MU_LAW_SILENCE: u8 = 0xFF;

/// The A-law byte of digital silence: A-law has no zero, this is its smallest positive step (sample 8).
pub const A_LAW_SILENCE: u8 = 0xD5;

impl Law {
    /// The byte that stands for digital silence.
    pub const fn silence(self) -> u8 {
        match self {
            Law::Mu => MU_LAW_SILENCE,
            Law::A => A_LAW_SILENCE,
        }
    }

    /// The 16-bit sample of one byte.
    pub const fn decode_sample(self, byte: u8) -> i16 {
        match self {
            Law::Mu => MU_LAW_TO_PCM[byte as usize],
            Law::A => A_LAW_TO_PCM[byte as usize],
        }
    }

    /// The byte of one 16-bit sample.
    pub const fn encode_sample(self, sample: i16) -> u8 {
        match self {
            Law::Mu => PCM_TO_MU_LAW[(sample as u16 >> MU_LAW_DROPPED_BITS) as usize],
            Law::A => PCM_TO_A_LAW[(sample as u16 >> A_LAW_DROPPED_BITS) as usize],
        }
    }

    /// Appends the samples of `coded` to `pcm`.
    pub fn decode(self, coded: &[u8], pcm: &mut Vec<i16>) {
        pcm.extend(coded.iter().map(|byte| self.decode_sample(*byte)));
    }

    /// Appends the bytes of `pcm` to `coded`.
    pub fn encode(self, pcm: &[i16], coded: &mut Vec<u8>) {
        coded.extend(pcm.iter().map(|sample| self.encode_sample(*sample)));
    }
}

/// µ-law is defined on 14-bit samples, A-law on 13-bit samples whose last bit never decides.
const MU_LAW_DROPPED_BITS: u32 = 2;
const A_LAW_DROPPED_BITS: u32 = 4;

static MU_LAW_TO_PCM: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = expand_mu_law(byte as u8);
        byte += 1;
    }
    table
};

static A_LAW_TO_PCM: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = expand_a_law(byte as u8);
        byte += 1;
    }
    table
};

static PCM_TO_MU_LAW: [u8; 1 << (16 - MU_LAW_DROPPED_BITS)] = {
    let mut table = [0; 1 << (16 - MU_LAW_DROPPED_BITS)];
    let mut index = 0;
    while index < table.len() {
        table[index] = compress_mu_law((index << MU_LAW_DROPPED_BITS) as u16 as i16);
        index += 1;
    }
    table
};

static PCM_TO_A_LAW: [u8; 1 << (16 - A_LAW_DROPPED_BITS)] = {
    let mut table = [0; 1 << (16 - A_LAW_DROPPED_BITS)];
    let mut index = 0;
    while index < table.len() {
        table[index] = compress_a_law((index << A_LAW_DROPPED_BITS) as u16 as i16);
        index += 1;
    }
    table
};

/// G.711 table 2: eight segments of sixteen steps, each segment's step twice the one before; the bias makes the
/// segment the position of the highest bit.
const MU_LAW_BIAS: i16 = 33 << MU_LAW_DROPPED_BITS;

const fn expand_mu_law(byte: u8) -> i16 {
    let inverted = !byte;
    let segment = (inverted >> 4) & 0x07;
    let step = (inverted & 0x0F) as i16;
    let magnitude = (((step << 3) + MU_LAW_BIAS) << segment) - MU_LAW_BIAS;
    if inverted & 0x80 == 0 { magnitude } else { -magnitude }
}

const fn compress_mu_law(sample: i16) -> u8 {
    // One's complement: a negative sample exactly on a decision value belongs to the step nearer zero, so that every
    // step is equally wide on both sides (as the reference code of ITU-T G.191 has it).
    let magnitude = if sample < 0 { !sample } else { sample } as i32 >> MU_LAW_DROPPED_BITS;
    let biased = if magnitude + 33 > 0x1FFF { 0x1FFF } else { magnitude + 33 };
    let segment = 26 - biased.leading_zeros();
    let step = (biased >> (segment + 1)) & 0x0F;
    let sign = if sample < 0 { 0x80 } else { 0x00 };
    !(sign | (segment << 4) as u8 | step as u8)
}

/// G.711 5.2: every even bit of an A-law byte is inverted on the line.
const A_LAW_INVERTED_BITS: u8 = 0x55;

const fn expand_a_law(byte: u8) -> i16 {
    let plain = byte ^ A_LAW_INVERTED_BITS;
    let segment = (plain >> 4) & 0x07;
    let half_step = ((plain & 0x0F) as i16) << 4 | 0x08;
    let magnitude = if segment == 0 { half_step } else { (half_step + 0x100) << (segment - 1) };
    if plain & 0x80 == 0 { -magnitude } else { magnitude }
}

const fn compress_a_law(sample: i16) -> u8 {
    let magnitude = if sample < 0 { !sample } else { sample } as u32 >> A_LAW_DROPPED_BITS;
    let segment = if magnitude < 0x20 { magnitude >> 4 } else { 28 - magnitude.leading_zeros() };
    let step = if segment == 0 { magnitude } else { magnitude >> (segment - 1) } & 0x0F;
    let sign = if sample < 0 { 0x00 } else { 0x80 };
    (sign | (segment << 4) as u8 | step as u8) ^ A_LAW_INVERTED_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positive decision values and quantizing values of G.711 tables 1a (A-law, times 16 for 16 bits) and 2a
    /// (µ-law, times 4), built from the tables' own columns: number of intervals times interval size.
    fn standard(law: Law) -> (Vec<i32>, Vec<i32>) {
        let (intervals, unit): (&[(usize, i32)], i32) = match law {
            Law::Mu => {
                (&[(1, 1), (15, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64), (16, 128), (16, 256)], 4)
            }
            Law::A => (&[(32, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64), (16, 128)], 8),
        };
        let mut decisions = vec![0];
        for (count, size) in intervals {
            for _ in 0..*count {
                decisions.push(decisions[decisions.len() - 1] + size * unit);
            }
        }
        let middle = |pair: &[i32]| (pair[0] + pair[1]) / 2;
        let mut values: Vec<i32> = decisions.windows(2).map(middle).collect();
        if law == Law::Mu {
            values[0] = 0;
        }
        (decisions, values)
    }

    fn positive_byte(law: Law, step: usize) -> u8 {
        match law {
            Law::Mu => !(step as u8),
            Law::A => (0x80 | step as u8) ^ 0x55,
        }
    }

    #[test]
    fn every_byte_decodes_to_the_value_in_the_standard() {
        for law in [Law::Mu, Law::A] {
            let (_, values) = standard(law);
            assert_eq!(values.len(), 128);
            for (step, value) in values.iter().enumerate() {
                let byte = positive_byte(law, step);
                assert_eq!(i32::from(law.decode_sample(byte)), *value, "{law:?} {byte:#04x}");
                assert_eq!(
                    i32::from(law.decode_sample(byte ^ 0x80)),
                    -*value,
                    "{law:?} {:#04x}",
                    byte ^ 0x80
                );
            }
        }
    }

    #[test]
    fn every_sample_encodes_into_its_interval_of_the_standard() {
        for law in [Law::Mu, Law::A] {
            let (decisions, _) = standard(law);
            for sample in i16::MIN..=i16::MAX {
                let magnitude = if sample < 0 { i32::from(!sample) } else { i32::from(sample) };
                let step = decisions[1..128].partition_point(|decision| *decision <= magnitude);
                let positive = positive_byte(law, step);
                let expected = if sample < 0 { positive ^ 0x80 } else { positive };
                assert_eq!(law.encode_sample(sample), expected, "{law:?} {sample}");
            }
        }
    }

    #[test]
    fn silence_is_the_smallest_positive_step() {
        assert_eq!(Law::Mu.encode_sample(0), MU_LAW_SILENCE);
        assert_eq!(Law::Mu.decode_sample(MU_LAW_SILENCE), 0);
        assert_eq!(Law::A.encode_sample(0), A_LAW_SILENCE);
        assert_eq!(Law::A.decode_sample(A_LAW_SILENCE), 8);
    }

    #[test]
    fn coded_audio_survives_any_number_of_links() {
        for law in [Law::Mu, Law::A] {
            let all: Vec<u8> = (0..=255).filter(|byte| (law, *byte) != (Law::Mu, 0x7F)).collect();
            let (mut pcm, mut again) = (vec![], vec![]);
            law.decode(&all, &mut pcm);
            law.encode(&pcm, &mut again);
            assert_eq!(again, all, "only negative zero of µ-law, 0x7F, becomes positive zero");
        }
    }
}
