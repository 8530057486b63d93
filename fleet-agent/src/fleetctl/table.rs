//! Tables as Go's `tabwriter` aligns them with tabs of eight: byte for byte what fleet prints.

/// Columns stand at multiples of this.
const TAB_WIDTH: usize = 8;
/// At least so much between a cell and the next.
const PADDING: usize = 1;

/// Aligns rows of equally many cells. The last column is not padded; an empty table is empty.
///
/// # Panics
/// If a row has more or fewer cells than the first.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    assert!(
        rows.iter().all(|row| row.len() == columns),
        "rows of different lengths"
    );
    let widths: Vec<usize> = (0..columns).map(|column| width(rows, column)).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let cell = printable(cell);
            text.push_str(&cell);
            if column + 1 < columns {
                let missing = widths[column] - cell.chars().count();
                text.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB_WIDTH)));
            }
        }
        text.push('\n');
    }
    text
}

/// The longest cell and its padding, rounded up to a whole tab.
fn width(rows: &[Vec<String>], column: usize) -> usize {
    let longest = rows
        .iter()
        .map(|row| printable(&row[column]).chars().count())
        .max()
        .unwrap_or(0);
    (longest + PADDING).next_multiple_of(TAB_WIDTH)
}

/// Machines describe themselves: what would move a terminal's cursor, or a cell, is shown instead of done.
fn printable(cell: &str) -> String {
    if cell.chars().any(char::is_control) {
        return cell
            .chars()
            .map(|each| {
                if each.is_control() {
                    each.escape_default().to_string()
                } else {
                    each.to_string()
                }
            })
            .collect();
    }
    cell.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect()
    }

    #[test]
    fn cells_are_padded_with_tabs_to_the_next_stop_after_the_longest() {
        let table = rows(&[&["a", "b", "c"], &["1234567", "x", "-"], &["", "", "end"]]);
        assert_eq!(align(&table), "a\tb\tc\n1234567\tx\t-\n\t\tend\n");
        let table = rows(&[&["a", "b"], &["12345678", "x"]]);
        assert_eq!(align(&table), "a\t\tb\n12345678\tx\n");
    }

    #[test]
    fn width_is_counted_in_characters() {
        assert_eq!(
            align(&rows(&[&["ééééééé", "x"], &["a", "y"]])),
            "ééééééé\tx\na\ty\n"
        );
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(
            align(&rows(&[&["a\x1b[2J\tb\n", "x"]])),
            "a\\u{1b}[2J\\tb\\n\tx\n"
        );
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(align(&[]), "");
    }
}
