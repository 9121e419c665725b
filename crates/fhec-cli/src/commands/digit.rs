//! Small grey pictures in a terminal: two pixels a character, as half-blocks.

/// Draws row-major pixels (0 black to 1 white). With `colour` in 24-bit greys, otherwise in five shades of
/// characters that any terminal has.
pub(crate) fn draw(pixels: &[f64], width: usize, colour: bool) -> String {
    let rows: Vec<&[f64]> = pixels.chunks(width.max(1)).collect();
    let mut out = String::new();
    for pair in rows.chunks(2) {
        out.push_str("    ");
        for x in 0..width {
            let upper = pair[0].get(x).copied().unwrap_or(0.0);
            let lower = pair.get(1).and_then(|row| row.get(x)).copied().unwrap_or(0.0);
            if colour {
                let grey = |v: f64| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
                let (u, l) = (grey(upper), grey(lower));
                out.push_str(&format!("\x1b[38;2;{u};{u};{u}m\x1b[48;2;{l};{l};{l}m▀"));
            } else {
                out.push(half_block(upper, lower));
            }
        }
        if colour {
            out.push_str("\x1b[0m");
        }
        out.push('\n');
    }
    out
}

/// The character whose upper and lower half are as bright as two pixels.
fn half_block(upper: f64, lower: f64) -> char {
    match (upper, lower) {
        (u, l) if u > 0.5 && l > 0.5 => '█',
        (u, _) if u > 0.5 => '▀',
        (_, l) if l > 0.5 => '▄',
        (u, l) if u + l > 0.25 => '░',
        _ => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_become_one_line() {
        let picture = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.3];
        assert_eq!(draw(&picture, 4, false), "    ▀▄█ \n       ░\n");
        assert_eq!(draw(&picture, 4, true).matches('▀').count(), 8);
    }
}
