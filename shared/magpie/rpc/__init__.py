"""The generated contracts over every transport: native gRPC, Lambda, in process, HTTP."""
