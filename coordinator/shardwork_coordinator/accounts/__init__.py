"""Accounts: people who sign in to the dashboard, what they may do, and what they did. No HTTP here.

passwords   argon2id, off the event loop
codes       one-time codes (TOTP)
users       who there is; signing in, with locks after wrong passwords
sessions    somebody who signed in
audit       what a person did as operator, append-only
"""
