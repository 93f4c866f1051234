//! Renders tables of text with columns of the needed width.

use crate::base::progress::plain_piece;

/// Renders rows below a heading. The last column is not padded. Control characters in a cell are escaped.
pub fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let plain_row = |row: &Vec<String>| row.iter().map(|cell| plain_piece(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain_row).collect();
    let columns = heading.len();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
