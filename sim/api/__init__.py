"""What a user calls, one file a subject: inputs are refused, defaults filled in and plans completed here."""
