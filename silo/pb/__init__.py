"""The wire: messages and services, generated from proto/ by tools/gen_proto.py and committed as they come.
To change anything here, edit proto/ and run `make proto`.
"""
