"""From numbers to what people read: tables in four formats, figures and the report."""
