"""The local stack: the official Firestore emulator, a Postgres, and Airflow. make, the tests and the demo use it."""
