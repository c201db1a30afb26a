import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Arrays;

/** sqlite-jdbc. "write PATH" does the work, "read PATH" answers each line of SQL on one connection. */
public class Client {
  private final Connection connection;

  private Client(Connection connection) {
    this.connection = connection;
  }

  public static void main(String[] args) throws Exception {
    try (Connection connection = DriverManager.getConnection("jdbc:sqlite:" + args[1] + "?busy_timeout=20000")) {
      Client client = new Client(connection);
      if (args[0].equals("write")) {
        client.write();
        System.out.println(client.ask("select sqlite_version()"));
        return;
      }
      BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        System.out.println(client.ask(line));
      }
    }
  }

  private void write() throws SQLException {
    execute("pragma cache_size=10");
    execute("pragma journal_mode=delete");
    execute("create table t(id integer primary key, n integer, v blob)");
    execute("create index tn on t(n)");
    for (int i = 0; i < 50; i++) insert(i, new byte[i * 40]);
    connection.setAutoCommit(false);
    for (int i = 0; i < 3000; i++) insert(1000 + i, filled(200, i % 251));
    connection.commit();
    execute("update t set v=randomblob(500)");
    connection.rollback();
    connection.setAutoCommit(true);
    insert(-1, filled(300_000, 7));
    execute("pragma journal_mode=wal");
    for (int i = 0; i < 50; i++) insert(10_000 + i, new byte[100]);
    connection.setAutoCommit(false);
    execute("update t set v=randomblob(1000)");
    connection.rollback();
    execute("delete from t where n between 2000 and 3499");
    connection.commit();
    connection.setAutoCommit(true);
    execute("vacuum");
    execute("pragma journal_mode=delete");
    insert(20_000, "rollback journal".getBytes(StandardCharsets.UTF_8));
    execute("vacuum");
    execute("pragma journal_mode=wal");
    insert(30_000, "write-ahead log".getBytes(StandardCharsets.UTF_8));
  }

  private void execute(String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.execute(sql);
    }
  }

  private void insert(int n, byte[] blob) throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement("insert into t(n, v) values(?, ?)")) {
      statement.setInt(1, n);
      statement.setBytes(2, blob);
      statement.executeUpdate();
    }
  }

  private String ask(String sql) throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet row = statement.executeQuery(sql)) {
      return row.next() ? row.getString(1) : "";
    }
  }

  private static byte[] filled(int size, int value) {
    byte[] bytes = new byte[size];
    Arrays.fill(bytes, (byte) value);
    return bytes;
  }
}
